//! How long things took, counted in buckets: a histogram of bounded memory.

use super::clock::Nanos;

/// A power of two is cut into so many buckets: what is told is at most a sixteenth, 6 %, above the true value.
const BUCKETS_PER_POWER: u64 = 16;
/// Its logarithm.
const BITS: u32 = BUCKETS_PER_POWER.trailing_zeros();
/// What takes longer is counted as this long: 2^40 ns are 18 minutes.
const LONGEST: Nanos = 1 << 40;

/// Counts of spans of time, by their length: linear within each power of two. It has at most 593 buckets, 5 KB, and no
/// more than the longest span asks for.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: Nanos,
    longest: Nanos,
}

impl Histogram {
    /// Counts a span.
    #[inline]
    pub fn record(&mut self, span: Nanos) {
        let bucket = bucket_of(span.min(LONGEST));
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(span);
        self.longest = self.longest.max(span);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; 0 if there are none.
    pub fn mean(&self) -> Nanos {
        self.sum.checked_div(self.count).unwrap_or(0)
    }

    /// The longest of them.
    pub fn longest(&self) -> Nanos {
        self.longest
    }

    /// What the share `p` of them, from 0 to 1, did not exceed; rounded up to the end of a bucket.
    pub fn percentile(&self, p: f64) -> Nanos {
        let wanted = ((p * self.count as f64).ceil() as u64).max(1);
        let mut counted = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            counted += count;
            if counted >= wanted {
                return last_of(bucket).min(self.longest);
            }
        }
        self.longest
    }
}

/// Spans below two times 16 ns have a bucket each; from there on the four bits below the highest one tell which.
#[inline]
fn bucket_of(span: Nanos) -> usize {
    let power = (span | BUCKETS_PER_POWER).ilog2() - BITS;
    (u64::from(power) * BUCKETS_PER_POWER + (span >> power)) as usize
}

/// The longest span of a bucket.
fn last_of(bucket: usize) -> Nanos {
    let bucket = bucket as u64;
    let power = (bucket / BUCKETS_PER_POWER).saturating_sub(1);
    ((bucket - power * BUCKETS_PER_POWER + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_span_lies_in_its_bucket_and_no_bucket_is_wider_than_a_sixteenth() {
        let spans = (0..40).flat_map(|power| [0, 1, 7, 1000].map(|more| (1u64 << power) + more));
        for span in (0..200).chain(spans) {
            let bucket = bucket_of(span);
            assert!(last_of(bucket) >= span, "{span}");
            assert!(bucket == 0 || last_of(bucket - 1) < span, "{span}");
            assert!(last_of(bucket) - span <= span / 16, "{span}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_spans_within_a_sixteenth() {
        let mut histogram = Histogram::default();
        for span in (1..=1000u64).rev() {
            histogram.record(span * 1_000);
        }
        assert_eq!((histogram.count(), histogram.mean(), histogram.longest()), (1000, 500_500, 1_000_000));
        for (p, exact) in [(0.0, 1_000), (0.5, 500_000), (0.99, 990_000), (1.0, 1_000_000)] {
            let told = histogram.percentile(p);
            assert!(told >= exact && told - exact <= exact / 16, "{p}: {told}");
        }
    }

    #[test]
    fn an_empty_one_tells_nothing_and_the_longest_span_takes_bounded_memory() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.mean(), histogram.percentile(0.5)), (0, 0));
        histogram.record(Nanos::MAX);
        assert_eq!(histogram.longest(), Nanos::MAX);
        assert!(histogram.counts.len() <= 593);
    }
}
