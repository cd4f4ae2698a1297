//! Markdown on standard input to HTML on standard output: tables, headings with the ids that GitHub gives them, and
//! code with classes for its colours.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use pulldown_cmark::{CodeBlockKind, CowStr, Event, Options, Parser, Tag, TagEnd, html};
use syntect::html::{ClassStyle, ClassedHTMLGenerator};
use syntect::parsing::SyntaxSet;
use syntect::util::LinesWithEndings;

/// Turns a heading into its id: lower case, words joined by hyphens; a number tells apart those that are the same.
#[derive(Default)]
struct Slugs(HashMap<String, usize>);

impl Slugs {
    fn of(&mut self, heading: &str) -> String {
        let kept = heading.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let seen = self.0.entry(slug.clone()).or_insert(0);
        *seen += 1;
        if *seen == 1 { slug } else { format!("{slug}-{}", *seen - 1) }
    }
}

/// The text of the events up to the end of a heading.
fn text_of(events: &[Event]) -> String {
    let until = events.iter().take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))));
    until.fold(String::new(), |mut text, event| {
        if let Event::Text(part) | Event::Code(part) = event {
            text.push_str(part);
        }
        text
    })
}

fn name_headings(events: &mut [Event]) {
    let mut slugs = Slugs::default();
    for i in 0..events.len() {
        let (before, after) = events.split_at_mut(i + 1);
        if let Event::Start(Tag::Heading { id, .. }) = &mut before[i] {
            *id = Some(CowStr::from(slugs.of(&text_of(after))));
        }
    }
}

/// A block of code as HTML; in a language that is not known, as it is.
fn highlighted(code: &str, language: &str, syntaxes: &SyntaxSet) -> String {
    let syntax = syntaxes.find_syntax_by_token(language).unwrap_or_else(|| syntaxes.find_syntax_plain_text());
    let mut generator = ClassedHTMLGenerator::new_with_class_style(syntax, syntaxes, ClassStyle::Spaced);
    for line in LinesWithEndings::from(code) {
        // It fails for broken syntax definitions only, of which there are none.
        let _ = generator.parse_html_for_line_which_includes_newline(line);
    }
    format!("<pre><code class=\"language-{language}\">{}</code></pre>\n", generator.finalize())
}

/// Puts HTML in the place of each block of code.
fn colour_code(events: Vec<Event<'_>>) -> Vec<Event<'_>> {
    let syntaxes = SyntaxSet::load_defaults_newlines();
    let mut coloured = Vec::with_capacity(events.len());
    let mut block: Option<(String, String)> = None;
    for event in events {
        match (event, &mut block) {
            (Event::Start(Tag::CodeBlock(kind)), _) => {
                let language = if let CodeBlockKind::Fenced(name) = kind { name.to_string() } else { String::new() };
                block = Some((language, String::new()));
            }
            (Event::Text(text), Some((_, code))) => code.push_str(&text),
            (Event::End(TagEnd::CodeBlock), Some((language, code))) => {
                coloured.push(Event::Html(highlighted(code, language, &syntaxes).into()));
                block = None;
            }
            (event, _) => coloured.push(event),
        }
    }
    coloured
}

fn main() -> io::Result<()> {
    let mut markdown = String::new();
    io::stdin().read_to_string(&mut markdown)?;
    let mut events: Vec<Event> = Parser::new_ext(&markdown, Options::ENABLE_TABLES).collect();
    name_headings(&mut events);
    let mut page = String::new();
    html::push_html(&mut page, colour_code(events).into_iter());
    io::stdout().write_all(page.as_bytes())
}
