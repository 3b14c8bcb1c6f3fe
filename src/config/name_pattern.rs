//! Which repositories, of which registries, a pattern means.

use std::fmt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};

use super::RegistryPattern;
use crate::oci::{Name, Registry};

/// A glob over `registry/repository`: `docker.io/library/*`, `*.example.com/team/**`, `**/debug`.
///
/// In the host `*` is one label, in the repository it stops at `/`; `**` stands for whole components, any number of
/// them, and at the beginning for any registry.
#[derive(Clone, Debug)]
pub struct NamePattern {
    text: String,
    /// None is any.
    registry: Option<RegistryPattern>,
    repository: GlobMatcher,
}

impl NamePattern {
    pub fn matches(&self, name: &Name) -> bool {
        self.registry.as_ref().is_none_or(|registry| registry.matches(&name.registry)) && self.has(name)
    }

    /// The same, and what may be the same place by another name: see [`RegistryPattern::covers`].
    pub fn covers(&self, name: &Name) -> bool {
        self.registry.as_ref().is_none_or(|registry| registry.covers(&name.registry)) && self.has(name)
    }

    fn has(&self, name: &Name) -> bool {
        self.repository.is_match(name.repository.as_str())
    }
}

/// Why a text is no pattern of repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a pattern: want a registry, / and a repository, with * for a part of a name and ** for any path"
)]
pub struct InvalidNamePattern;

impl FromStr for NamePattern {
    type Err = InvalidNamePattern;

    fn from_str(text: &str) -> Result<Self, InvalidNamePattern> {
        let (registry, repository) = match text.split_once('/') {
            _ if text == "**" || text.starts_with("**/") => (None, text.to_owned()),
            // `library/**` would mean a host of that name, which no image has.
            Some((registry, repository)) if Registry::is_meant(registry) => {
                let registry: RegistryPattern = registry.parse().map_err(|_| InvalidNamePattern)?;
                let docker = matches!(&registry, RegistryPattern::Exact(registry) if registry.is_docker());
                // As in names: `docker.io/nginx` is `docker.io/library/nginx`.
                let short = docker && !repository.contains('/') && repository != "**";
                let library = if short { "library/" } else { "" };
                (Some(registry), format!("{library}{repository}"))
            }
            _ => return Err(InvalidNamePattern),
        };
        if !repository.split('/').all(is_component) {
            return Err(InvalidNamePattern);
        }
        let repository = GlobBuilder::new(&repository).literal_separator(true).build();
        let repository = repository.map_err(|_| InvalidNamePattern)?.compile_matcher();
        Ok(Self { text: text.to_owned(), registry, repository })
    }
}

/// What can be in a repository's name, and `*`.
fn is_component(text: &str) -> bool {
    let character = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-*".contains(&b);
    text == "**" || (!text.is_empty() && text.bytes().all(character) && !text.contains("**"))
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        let (registry, repository) = text.split_once('/').unwrap();
        Name::new(registry.parse().unwrap(), repository.parse().unwrap())
    }

    fn matches(pattern: &str, text: &str) -> bool {
        pattern.parse::<NamePattern>().unwrap().matches(&name(text))
    }

    fn covers(pattern: &str, text: &str) -> bool {
        pattern.parse::<NamePattern>().unwrap().covers(&name(text))
    }

    #[test]
    fn one_star_stops_at_a_slash_and_two_do_not() {
        assert!(matches("quay.io/team/*", "quay.io/team/app"));
        assert!(!matches("quay.io/team/*", "quay.io/team/app/debug"));
        assert!(matches("quay.io/team/**", "quay.io/team/app/debug"));
        assert!(!matches("quay.io/team/**", "quay.io/team"));
        assert!(!matches("quay.io/team/**", "quay.io/teams/app"));
        assert!(matches("quay.io/**/debug", "quay.io/debug"));
        assert!(matches("quay.io/**/debug", "quay.io/a/b/debug"));
        assert!(matches("quay.io/t*m/a-*", "quay.io/team/a-b"));
        assert!(!matches("quay.io/t.am/app", "quay.io/team/app"));
        assert!(matches("quay.io/team/app", "quay.io/team/app"));
    }

    #[test]
    fn in_a_host_a_star_is_one_label() {
        assert!(matches("*.example.com/**", "a.example.com/x"));
        assert!(!matches("*.example.com/**", "a.b.example.com/x"));
        assert!(!matches("*.example.com/**", "example.com/x"));
        assert!(matches("localhost:5000/**", "localhost:5000/a/b"));
        assert!(matches("[::1]:5000/**", "[::1]:5000/a"));
    }

    #[test]
    fn a_schemes_own_port_matches_nothing_else_but_covers_the_same_place() {
        for (pattern, name) in [
            ("quay.io/**", "quay.io:443/x"),
            ("quay.io/**", "quay.io:0443/x"),
            ("quay.io:443/team/*", "quay.io/team/x"),
            ("*.example.com/**", "a.example.com:80/x"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
            assert!(covers(pattern, name), "{pattern} {name}");
        }
        assert!(!covers("quay.io/team/*", "quay.io:443/other/x"));
        assert!(!covers("quay.io/**", "quay.io:5000/x"));
        assert!(covers("**/debug", "quay.io:443/debug"));
    }

    #[test]
    fn two_stars_in_front_are_any_registry() {
        assert!(matches("**", "quay.io/a/b"));
        assert!(matches("**/debug", "quay.io/a/debug"));
        assert!(matches("**/debug", "quay.io/debug"));
        assert!(!matches("**/debug", "quay.io/debug/a"));
    }

    #[test]
    fn docker_has_one_name_and_its_library() {
        assert!(matches("registry-1.docker.io/library/nginx", "docker.io/nginx"));
        assert!(matches("docker.io/nginx", "index.docker.io/nginx"));
        assert!(matches("docker.io/*", "docker.io/nginx"));
        assert!(!matches("docker.io/*", "docker.io/team/app"));
        assert!(matches("docker.io/**", "docker.io/team/app"));
    }

    #[test]
    fn what_can_match_nothing_is_refused() {
        for text in [
            "",
            "quay.io",
            "quay.io/",
            "/a",
            "*",
            "quay.io/a//b",
            "quay.io/A",
            "quay.io/a:1",
            "quay.io/a b",
            "quay.io/a**",
            "quay.io/[a]",
            "quay.io/{a,b}",
            "quay.io/a?",
            "q*.io/a",
            "quay.io/a@sha256:1",
            "library/**",
        ] {
            assert!(text.parse::<NamePattern>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in "[a-z*./:\\[\\]-]{0,30}|.*") {
            if let Ok(pattern) = text.parse::<NamePattern>() {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }

        #[test]
        fn a_name_is_a_pattern_for_itself(repository in "[a-z0-9]{1,5}([._-][a-z0-9]{1,3})?(/[a-z0-9]{1,5}){0,3}") {
            for registry in ["quay.io", "docker.io", "localhost:5000"] {
                let text = format!("{registry}/{repository}");
                prop_assert!(matches(&text, &text));
                let everything = format!("{registry}/**");
                prop_assert!(matches(&everything, &text));
            }
        }
    }
}
