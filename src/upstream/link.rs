//! The `Link` header (RFC 8288): where the next page of a list is. Pure.

use super::field::Rest;

/// The target of the first link to the next page, as it is written: relative or absolute. What makes no sense is
/// skipped up to the next comma. Links that say they are another document's (`anchor`) are not ours.
pub fn next(field: &str) -> Option<&str> {
    let mut rest = Rest(field);
    loop {
        rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        if rest.0.is_empty() {
            return None;
        }
        if rest.take('<') {
            let (target, behind) = rest.0.split_once('>')?;
            rest = Rest(behind);
            if leads_on(&mut rest) {
                return Some(target.trim());
            }
        }
        rest.skip_to_comma();
    }
}

/// Reads a link's parameters. Only its first `rel` counts, which may name several relations (section 3.3).
fn leads_on(rest: &mut Rest) -> bool {
    let (mut relations, mut anchored) = (None, false);
    loop {
        rest.skip(|c| c.is_ascii_whitespace());
        if !rest.take(';') {
            break;
        }
        rest.skip(|c| c.is_ascii_whitespace());
        let name = rest.token();
        rest.skip(|c| c.is_ascii_whitespace());
        let mut value = String::new();
        if rest.take('=') {
            rest.skip(|c| c.is_ascii_whitespace());
            value = rest.value(&[',', ';']);
        }
        if name.eq_ignore_ascii_case("rel") {
            relations.get_or_insert(value);
        } else if name.eq_ignore_ascii_case("anchor") {
            anchored = true;
        }
    }
    let is_next = |relation: &str| relation.eq_ignore_ascii_case("next");
    !anchored && relations.is_some_and(|relations| relations.split_ascii_whitespace().any(is_next))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_found_however_it_is_written() {
        for field in [
            r#"</v2/a/tags/list?n=1>; rel="next""#,
            "</v2/a/tags/list?n=1>;rel=next",
            "  </v2/a/tags/list?n=1>  ;  REL = NEXT  ",
            r#"< /v2/a/tags/list?n=1 >; rel="last next""#,
            r#"</x>; rel="prev", </v2/a/tags/list?n=1>; title="a, <b>; c"; rel="next""#,
            r#"</x>; title="rel=next", </v2/a/tags/list?n=1>; rel=next; rel=prev"#,
            r#"</x>; rel=prev; rel=next, </v2/a/tags/list?n=1>;;rel="next";"#,
            r#"</x>; rel="next"; anchor="/y", </v2/a/tags/list?n=1>; crossorigin; rel="next""#,
            r#"nonsense, </v2/a/tags/list?n=1>; rel="next""#,
        ] {
            assert_eq!(next(field), Some("/v2/a/tags/list?n=1"), "{field}");
        }
        assert_eq!(
            next(r#"<https://b.example/v2/a/tags/list?next=a,b;c>; rel="next""#),
            Some("https://b.example/v2/a/tags/list?next=a,b;c")
        );
    }

    #[test]
    fn what_is_no_next_page_is_none() {
        for field in [
            "",
            ",,",
            "<",
            "</x>",
            "</x>; rel",
            "</x>; rel=",
            "</x>; rel=nextpage",
            "/x; rel=next",
            "</x; rel=next",
            "</x> rel=next",
            r#"</x>; title="; rel=next"#,
        ] {
            assert_eq!(next(field), None, "{field}");
        }
    }

    proptest! {
        #[test]
        fn any_field_is_read_without_panic(field in "[<>;,=\" a-z/?\\\\]{0,60}|.*") {
            if let Some(target) = next(&field) {
                prop_assert!(field.contains(target) && !target.contains('>'));
            }
        }

        #[test]
        fn what_is_printed_is_found(
            target in "[!-=?-~]{0,40}",
            before in proptest::option::of("</[a-z,;]{0,9}>; rel=\"(prev|first|nexus)\"; title=\"[a-z<>,; ]{0,9}\""),
            quote: bool,
        ) {
            let rel = if quote { "\"next\"" } else { "next" };
            let link = format!("<{target}>; rel={rel}");
            let field = before.iter().cloned().chain([link]).collect::<Vec<_>>().join(", ");
            prop_assert_eq!(next(&field), Some(&*target));
        }
    }
}
