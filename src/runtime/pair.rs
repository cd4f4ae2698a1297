//! Two connected sockets, of the kind that loops watch on the system.

#[cfg(not(unix))]
pub use loopback::{Stream, number_of, pair};
#[cfg(unix)]
pub use socketpair::{Stream, number_of, pair};

#[cfg(unix)]
mod socketpair {
    use std::io;
    use std::os::fd::AsRawFd;
    pub use std::os::unix::net::UnixStream as Stream;

    /// A new pair.
    pub fn pair() -> io::Result<(Stream, Stream)> {
        Stream::pair()
    }

    /// The number by which the system knows it.
    pub fn number_of(stream: &Stream) -> i64 {
        i64::from(stream.as_raw_fd())
    }
}

/// Windows has no pairs, and its loops watch nothing but sockets of the network.
#[cfg(not(unix))]
mod loopback {
    use std::io;
    pub use std::net::TcpStream as Stream;
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::windows::io::AsRawSocket;

    /// A new pair.
    pub fn pair() -> io::Result<(Stream, Stream)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let writer = Stream::connect(listener.local_addr()?)?;
        writer.set_nodelay(true)?;
        loop {
            // Any program of the machine may connect meanwhile.
            let (reader, peer) = listener.accept()?;
            if peer == writer.local_addr()? {
                return Ok((reader, writer));
            }
        }
    }

    /// The number by which the system knows it.
    pub fn number_of(stream: &Stream) -> i64 {
        stream.as_raw_socket() as i64
    }
}
