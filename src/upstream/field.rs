//! The small parts that header fields are written with: tokens, quoted strings, lists (RFC 9110, 5.6). Pure.

/// What is left to be read of a field.
pub(super) struct Rest<'a>(pub(super) &'a str);

impl<'a> Rest<'a> {
    pub(super) fn skip(&mut self, what: impl Fn(char) -> bool) -> bool {
        let trimmed = self.0.trim_start_matches(what);
        let skipped = trimmed.len() < self.0.len();
        self.0 = trimmed;
        skipped
    }

    pub(super) fn take(&mut self, c: char) -> bool {
        let stripped = self.0.strip_prefix(c);
        self.0 = stripped.unwrap_or(self.0);
        stripped.is_some()
    }

    pub(super) fn token(&mut self) -> &'a str {
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        token
    }

    /// A quoted string, or what stands there up to a space or one of `ends`.
    pub(super) fn value(&mut self, ends: &[char]) -> String {
        if !self.take('"') {
            let is_end = |c: char| ends.contains(&c) || c.is_ascii_whitespace();
            let end = self.0.find(is_end).unwrap_or(self.0.len());
            let (value, rest) = self.0.split_at(end);
            self.0 = rest;
            return value.to_owned();
        }
        let mut value = String::new();
        let mut chars = self.0.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => value.extend(chars.next()),
                c => value.push(c),
            }
        }
        self.0 = chars.as_str();
        value
    }

    pub(super) fn is_at_parameter(&self) -> bool {
        let mut ahead = Rest(self.0);
        let name = ahead.token();
        ahead.skip(|c| c.is_ascii_whitespace());
        !name.is_empty() && ahead.take('=') && !matches!(ahead.0.chars().next(), None | Some('=' | ','))
    }

    pub(super) fn skip_to_comma(&mut self) {
        let end = self.0.find(',').unwrap_or(self.0.len());
        self.0 = &self.0[end..];
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}
