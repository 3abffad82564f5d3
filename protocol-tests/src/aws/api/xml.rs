//! XML as the Query services write it: elements and text, no attributes.

use std::fmt::{self, Display, Write as _};

/// The inside of an element, to be filled from the top.
#[derive(Debug, Default)]
pub(super) struct Xml(String);

impl Xml {
    /// An element with text.
    pub(super) fn text(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.nest(name, |xml| {
            // Writing to a string cannot fail.
            _ = write!(Escape(&mut xml.0), "{value}");
        })
    }

    /// An element with text, left out when there is none.
    pub(super) fn maybe(&mut self, name: &str, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// An element with others in it.
    pub(super) fn nest(&mut self, name: &str, fill: impl FnOnce(&mut Self)) -> &mut Self {
        _ = write!(self.0, "<{name}>");
        fill(self);
        _ = write!(self.0, "</{name}>");
        self
    }

    /// A list: the element `name` with an element `item` for each of `items`.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        item: &str,
        items: impl IntoIterator<Item = T>,
        fill: impl Fn(&mut Self, T),
    ) -> &mut Self {
        self.nest(name, |xml| {
            for one in items {
                xml.nest(item, |xml| fill(xml, one));
            }
        })
    }

    /// A list of texts.
    pub(super) fn texts<T: Display>(
        &mut self,
        name: &str,
        item: &str,
        items: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        self.nest(name, |xml| {
            for one in items {
                xml.text(item, one);
            }
        })
    }

    /// What another has been filled with.
    pub(super) fn extend(&mut self, content: Self) {
        self.0.push_str(&content.0);
    }

    /// The document around it: `root` may carry a namespace, as `Response xmlns="…"`.
    pub(super) fn document(self, root: &str) -> String {
        let name = root.split(' ').next().unwrap_or_default();
        let declaration = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
        format!("{declaration}\n<{root}>{}</{name}>\n", self.0)
    }
}

/// Writes text so that it stays text.
struct Escape<'a>(&'a mut String);

impl fmt::Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\r' => self.0.push_str("&#xD;"),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_nest_and_text_stays_text() {
        let mut xml = Xml::default();
        xml.text("A", "1 < 2 & \"3\"")
            .maybe("B", None::<&str>)
            .maybe("C", Some(true))
            .list("D", "E", [1, 2], |xml, n| {
                xml.text("F", n);
            })
            .texts("G", "H", [""; 0]);
        let text = xml.document("Root xmlns=\"urn:x\"");
        assert_eq!(
            text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Root xmlns=\"urn:x\">\
             <A>1 &lt; 2 &amp; &quot;3&quot;</A><C>true</C><D><E><F>1</F></E><E><F>2</F></E></D>\
             <G></G></Root>\n"
        );
    }
}
