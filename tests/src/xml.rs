//! XML documents as a tree of nodes, for assertions. Names are compared without prefix; namespaces are kept.

use quick_xml::NsReader;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;

/// An element.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Namespace, or empty.
    pub namespace: String,
    /// Local name.
    pub name: String,
    /// Attributes by local name, namespace declarations left out.
    pub attributes: Vec<(String, String)>,
    /// Elements within, in order.
    pub children: Vec<Node>,
    /// All text directly within.
    pub text: String,
}

impl Node {
    /// Reads a document; the message says why it is none.
    pub fn parse(document: &[u8]) -> Result<Self, String> {
        let document = std::str::from_utf8(document).map_err(|error| error.to_string())?;
        let mut reader = NsReader::from_str(document);
        let mut open: Vec<Node> = vec![Node::default()];
        loop {
            let (namespace, event) = reader.read_resolved_event().map_err(|error| error.to_string())?;
            let namespace = match namespace {
                ResolveResult::Bound(namespace) => namespace.into_inner().to_owned(),
                ResolveResult::Unbound | ResolveResult::Unknown(_) => String::new(),
            };
            match event {
                Event::Start(start) => open.push(element(namespace, &start)?),
                Event::Empty(start) => {
                    let node = element(namespace, &start)?;
                    top(&mut open)?.children.push(node);
                }
                Event::End(_) => {
                    let node = open.pop().ok_or("unbalanced")?;
                    top(&mut open)?.children.push(node);
                }
                Event::Text(text) => {
                    top(&mut open)?.text.push_str(&text);
                }
                Event::CData(data) => {
                    top(&mut open)?.text.push_str(&data);
                }
                Event::GeneralRef(reference) => {
                    let text = quick_xml::escape::unescape(&format!("&{};", &*reference))
                        .map_err(|error| error.to_string())?
                        .into_owned();
                    top(&mut open)?.text.push_str(&text);
                }
                Event::Eof => break,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
        if open.len() != 1 {
            return Err("the document ends too early".to_owned());
        }
        open.pop().and_then(|mut root| root.children.pop()).ok_or_else(|| "no element".to_owned())
    }

    /// Value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// First element of this name, at any depth, this one included.
    pub fn find(&self, name: &str) -> Option<&Node> {
        if self.name == name {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.find(name))
    }

    /// All elements of this name, at any depth, in document order.
    pub fn all<'a>(&'a self, name: &str) -> Vec<&'a Node> {
        let mut found = Vec::new();
        self.collect(name, &mut found);
        found
    }

    fn collect<'a>(&'a self, name: &str, found: &mut Vec<&'a Node>) {
        if self.name == name {
            found.push(self);
        }
        for child in &self.children {
            child.collect(name, found);
        }
    }

    /// Trimmed text of the first element of this name.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.find(name).map(|node| node.text.trim())
    }
}

fn top(open: &mut [Node]) -> Result<&mut Node, String> {
    open.last_mut().ok_or_else(|| "more ends than beginnings".to_owned())
}

fn element(namespace: String, start: &BytesStart<'_>) -> Result<Node, String> {
    let mut node = Node { namespace, name: start.local_name().into_inner().to_owned(), ..Node::default() };
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let key = attribute.key;
        if key.as_ref() == "xmlns" || key.as_ref().starts_with("xmlns:") {
            continue;
        }
        let value =
            quick_xml::escape::unescape(&attribute.value).map_err(|error| error.to_string())?.into_owned();
        node.attributes.push((key.local_name().into_inner().to_owned(), value));
    }
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_tree_and_refuses_half_of_one() {
        let node =
            Node::parse(b"<a:x xmlns:a='u' k='1&amp;2'><y>p &lt; <![CDATA[q]]></y><y/></a:x>").unwrap();
        assert_eq!((node.namespace.as_str(), node.attribute("k")), ("u", Some("1&2")));
        assert_eq!(node.all("y").len(), 2);
        assert_eq!(node.text_of("y"), Some("p < q"));
        assert!(Node::parse(b"<a><b></b>").is_err());
    }
}
