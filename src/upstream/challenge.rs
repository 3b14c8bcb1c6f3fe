//! `WWW-Authenticate`: what a registry wants to see before it answers (RFC 9110, 11.6.1). Pure.

use std::fmt;

use super::field::Rest;

/// One challenge: a scheme and its parameters, the parameters' names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub scheme: String,
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scheme)?;
        for (at, (name, value)) in self.parameters.iter().enumerate() {
            let value = value.replace('\\', r"\\").replace('"', r#"\""#);
            write!(f, "{}{name}=\"{value}\"", if at == 0 { " " } else { ", " })?;
        }
        Ok(())
    }
}

/// The challenges of one header line. What makes no sense is skipped up to the next comma: a registry that
/// writes sloppily is still understood where it can be.
pub fn parse(line: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = Rest(line);
    loop {
        rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        if rest.0.is_empty() {
            return challenges;
        }
        let word = rest.token();
        let spaced = rest.skip(|c| c.is_ascii_whitespace());
        if word.is_empty() {
            rest.skip_to_comma();
        } else if rest.take('=') && !rest.0.starts_with('=') {
            rest.skip(|c| c.is_ascii_whitespace());
            let value = rest.value(&[',']);
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.push((word.to_ascii_lowercase(), value));
            }
        } else {
            challenges.push(Challenge { scheme: word.to_owned(), parameters: Vec::new() });
            // `Scheme token68`: nothing of ours reads those. Else the first parameter follows without a comma.
            if !spaced || !rest.is_at_parameter() {
                rest.skip_to_comma();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        Challenge {
            scheme: scheme.to_owned(),
            parameters: parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn what_registries_send() {
        assert_eq!(
            parse(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull,push""#
            ),
            [challenge(
                "Bearer",
                &[
                    ("realm", "https://auth.docker.io/token"),
                    ("service", "registry.docker.io"),
                    ("scope", "repository:library/busybox:pull,push"),
                ]
            )]
        );
        assert_eq!(
            parse(r#"BASIC Realm = "a \"b\", c\\" , charset=UTF-8"#),
            [challenge("BASIC", &[("realm", r#"a "b", c\"#), ("charset", "UTF-8")])]
        );
        assert_eq!(
            parse(r#"Negotiate, NTLM dGVzdA==, , Bearer realm=https://a/t,scope="",Basic realm="x""#),
            [
                challenge("Negotiate", &[]),
                challenge("NTLM", &[]),
                challenge("Bearer", &[("realm", "https://a/t"), ("scope", "")]),
                challenge("Basic", &[("realm", "x")]),
            ]
        );
    }

    #[test]
    fn nonsense_is_skipped() {
        for line in ["", ",", "=", "\"", "\"a, b", "==,=", " , ,"] {
            let _ = parse(line);
        }
        assert_eq!(
            parse(r#"@@@ x, Basic realm="never closed"#),
            [challenge("Basic", &[("realm", "never closed")])]
        );
    }

    proptest! {
        #[test]
        fn any_line_is_parsed_without_panic(line in r#"[a-zA-Z=,"\\ \t]{0,60}|.*"#) {
            let _ = parse(&line);
        }

        #[test]
        fn printed_challenges_parse_back(
            challenges in proptest::collection::vec(
                ("[a-zA-Z][a-zA-Z0-9-]{0,8}", proptest::collection::vec(("[a-z][a-z0-9_]{0,8}", ".{0,20}"), 0..4)),
                0..4,
            )
        ) {
            let challenges: Vec<_> = challenges
                .into_iter()
                .map(|(scheme, parameters)| Challenge { scheme, parameters })
                .collect();
            let printed: Vec<_> = challenges.iter().map(ToString::to_string).collect();
            prop_assert_eq!(parse(&printed.join(", ")), challenges);
        }
    }
}
