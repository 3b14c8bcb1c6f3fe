//! Places in a JSON text, to change it there and nowhere else.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::value::RawValue;

/// One of an object's members.
pub struct Member<'a> {
    /// From its key to its value, in the text.
    pub start: usize,
    pub end: usize,
    pub value: &'a RawValue,
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// The member of that name of the object that `text` is. Where it is there twice, the last one, which counts.
/// The error says what is wrong with the text.
pub fn find<'a>(text: &'a str, name: &str) -> Result<Option<Member<'a>>, String> {
    let members: HashMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|error| format!("is no JSON object: {error}"))?;
    let Some(value) = members.get(name) else {
        return Ok(None);
    };
    let Range { start, end } = place(text, value.get());
    let before = text.get(..start).unwrap_or_default().trim_end_matches(SPACE);
    let before = before.strip_suffix(':').unwrap_or(before).trim_end_matches(SPACE);
    let Some(before) = before.strip_suffix(&format!("\"{name}\"")) else {
        return Err(format!("writes the name {name} in an unusual way"));
    };
    Ok(Some(Member { start: before.len(), end, value }))
}

/// Where in `text` a part of it is.
pub fn place(text: &str, part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    start..start + part.len()
}

/// Puts an item before all others of an object or a list, which is a part of `text`; behind `pad` where it is
/// empty. [`remove`] gives the former text.
pub fn prepend(text: &str, container: &str, item: &str, pad: &str) -> String {
    let container = container.trim_start_matches(SPACE);
    let open = place(text, container).start + 1;
    let (head, inside) = text.split_at(open);
    let rest = inside.trim_start_matches(SPACE);
    let gap = inside.strip_suffix(rest).unwrap_or_default();
    if rest.starts_with(['}', ']']) {
        format!("{head}{pad}{item}{inside}")
    } else {
        let between = if gap.is_empty() { " " } else { gap };
        format!("{head}{gap}{item},{between}{rest}")
    }
}

/// Takes away an item of an object or a list, and its comma.
pub fn remove(text: &str, item: Range<usize>) -> String {
    let (before, after) =
        (text.get(..item.start).unwrap_or_default(), text.get(item.end..).unwrap_or_default());
    if let Some(next) = after.trim_start_matches(SPACE).strip_prefix(',') {
        return format!("{before}{}", next.trim_start_matches(SPACE));
    }
    let before = before.trim_end_matches(SPACE);
    format!("{}{after}", before.strip_suffix(',').unwrap_or(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out_again() {
        for text in
            ["{}", "{ }", "{\n}", "{\"a\":1}", "{\n\t\"a\": [1, 2],\n\t\"b\": {}\n}\n", " { \"a\" : \"}\" } "]
        {
            let more = prepend(text, text, "\"x\": 1", "");
            let member = find(&more, "x").unwrap().unwrap();
            assert_eq!(remove(&more, member.start..member.end), text, "{more}");
        }
    }

    #[test]
    fn a_list_in_an_object_is_changed_in_its_place() {
        let text = "{\"l\": [\n  \"a\",\n  \"b\"\n], \"m\": 1}";
        let member = find(text, "l").unwrap().unwrap();
        let more = prepend(text, member.value.get(), "\"x\"", "");
        assert_eq!(more, "{\"l\": [\n  \"x\",\n  \"a\",\n  \"b\"\n], \"m\": 1}");
    }

    #[test]
    fn the_last_item_goes_with_the_comma_before_it() {
        let text = "{\"a\": 1 ,\n \"x\": [] }";
        let member = find(text, "x").unwrap().unwrap();
        assert_eq!(remove(text, member.start..member.end), "{\"a\": 1  }");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "{", "{\"a\": 1,}", "// c\n{}"] {
            assert!(find(text, "a").is_err(), "{text}");
        }
        assert!(find("{\"\\u0061\": 1}", "a").is_err());
        assert!(find("{\"b\": {\"a\": 1}}", "a").unwrap().is_none());
    }
}
