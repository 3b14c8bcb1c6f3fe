//! A value as it was given, before anybody has asked what it means, and the line it stands on.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Integer(i64),
    Bool(bool),
    List(Vec<Item>),
    Table(Table),
    /// What TOML has and no key of ours wants: its name in an error message.
    Other(&'static str),
}

/// A value in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub line: usize,
    pub value: Value,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub line: usize,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub line: usize,
    pub value: Value,
}

impl Table {
    /// Reads a TOML document; on failure, each fault's line and what is wrong there.
    ///
    /// The parser's own rendering of an error quotes the line, which may hold a secret: only its message is used.
    pub fn parse(text: &str) -> Result<Self, Vec<(usize, String)>> {
        let (document, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self::new(text, 0, document.get_ref()));
        }
        let fault = |error: &toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            (line, format!("not TOML: {}", error.message()))
        };
        Err(errors.iter().map(fault).collect())
    }

    fn new(text: &str, offset: usize, table: &DeTable) -> Self {
        let entry = |(key, value): (&Spanned<_>, &Spanned<_>)| Entry {
            key: ToString::to_string(key.get_ref()),
            line: line_of(text, key.span().start),
            value: Value::new(text, value),
        };
        let mut entries: Vec<Entry> = table.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.line);
        Self { line: line_of(text, offset), entries }
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&b| b == b'\n').count()
}

impl Value {
    fn new(text: &str, value: &Spanned<DeValue>) -> Self {
        match value.get_ref() {
            DeValue::String(string) => Self::Text(string.to_string()),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map_or(Self::Other("an integer beyond 64 bits"), Self::Integer),
            DeValue::Boolean(bool) => Self::Bool(*bool),
            DeValue::Array(items) => Self::List(
                items
                    .iter()
                    .map(|item| Item { line: line_of(text, item.span().start), value: Self::new(text, item) })
                    .collect(),
            ),
            DeValue::Table(table) => Self::Table(Table::new(text, value.span().start, table)),
            DeValue::Float(_) => Self::Other("a fraction"),
            DeValue::Datetime(_) => Self::Other("a date"),
        }
    }

    /// What a command line's text means for a key whose default is `like`.
    pub fn from_argument(text: &str, like: &Self) -> Self {
        let typed = match like {
            Self::Integer(_) => text.parse().ok().map(Self::Integer),
            Self::Bool(_) => text.parse().ok().map(Self::Bool),
            _ => None,
        };
        typed.unwrap_or_else(|| text.into())
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            _ => None,
        }
    }

    /// Its type with an article, and no more: what may be said of a secret.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Bool(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }

    /// As TOML, on one line.
    pub fn to_toml(&self) -> String {
        match self {
            Self::Text(text) => quote(text),
            Self::Integer(integer) => integer.to_string(),
            Self::Bool(bool) => bool.to_string(),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| item.value.to_toml()).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Table(_) | Self::Other(_) => String::new(),
        }
    }
}

/// A basic string, with everything escaped that could end the line.
fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl From<bool> for Value {
    fn from(bool: bool) -> Self {
        Self::Bool(bool)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_know_their_lines() {
        let table = Table::parse("b = 1\n\n[[r]]\nname = \"x\"\nl = [\n 1,\n 2]\n").unwrap();
        assert_eq!(table.get("b").unwrap().line, 1);
        let Value::List(items) = &table.get("r").unwrap().value else { panic!("no list") };
        let Value::Table(entry) = &items[0].value else { panic!("no table") };
        assert_eq!((entry.line, entry.get("name").unwrap().line), (3, 4));
        let Value::List(numbers) = &entry.get("l").unwrap().value else { panic!("no list") };
        assert_eq!(numbers.iter().map(|n| n.line).collect::<Vec<_>>(), [6, 7]);
    }

    #[test]
    fn a_syntax_error_quotes_nothing_of_the_file() {
        for text in [
            "a = 1\npassword = \"hunter2\n",
            "a = 1\npassword = hunter2",
            "a = 1\npassword = \"hunter2\\q\"",
            "password = 1\npassword = \"hunter2\"",
            "a = 1\npassword hunter2",
        ] {
            let faults = Table::parse(text).unwrap_err();
            assert_eq!(faults[0].0, 2, "{faults:?}");
            assert!(faults.iter().all(|(_, fault)| !fault.contains("hunter2")), "{faults:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_printed_as_toml_reads_back_on_one_line(text: String) {
            let value = Value::Text(text);
            let printed = value.to_toml();
            prop_assert!(!printed.contains('\n'));
            let table = Table::parse(&format!("k = {printed} # comment")).unwrap();
            prop_assert_eq!(&table.get("k").unwrap().value, &value);
        }

        #[test]
        fn any_document_is_parsed_without_panic(text: String) {
            let _ = Table::parse(&text);
        }
    }
}
