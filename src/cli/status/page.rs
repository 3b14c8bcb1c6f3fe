//! The daemon's state laid out for people: what is wrong first of each thing, and nothing wider than the terminal.

use crate::admin::words::{Bytes, Number, clock, count, lasted, plural};
use crate::admin::{Column, Cut, Table};
use crate::admin::{Status, Underway, UpstreamState, UpstreamStatus};

/// What stands before a fact.
const LABEL: usize = 12;

/// Rows of a table at most; JSON has all.
const ROWS: usize = 20;

/// The lines of it. `width` is the terminal's; without one nothing is cut.
pub fn page(status: &Status, width: Option<usize>) -> Vec<String> {
    let mut page = Page { lines: Vec::new(), width };
    page.line(format!(
        "ociregistry {}, process {}, up {}",
        status.version,
        status.pid,
        lasted(status.uptime_seconds)
    ));
    page.fact("serving on", &status.addresses.join(", "));
    page.fact("cache", &cache(status));
    page.fact("disk", &disk(status));
    if let Some(trouble) = &status.disk_trouble {
        page.fact(
            "",
            &format!(
                "THE DISK IS {} since {}: {}. Pulls go on; what is new is not kept",
                trouble.state.to_uppercase(),
                clock(trouble.since),
                trouble.error
            ),
        );
    }
    if status.passing > 0 {
        page.fact(
            "",
            &format!("{} passed on past the disk", plural(status.passing, "answer is", "answers are")),
        );
    }
    page.fact(
        "requests",
        &format!(
            "{}, {} under way; {}, {}, {} stale",
            Number(status.requests),
            Number(status.requests_under_way),
            count(status.hits, "hit"),
            plural(status.misses, "miss", "misses"),
            Number(status.stale)
        ),
    );
    page.fact(
        "bytes",
        &format!(
            "{} served, {} fetched, {} saved",
            Bytes(status.bytes_served),
            Bytes(status.bytes_fetched),
            Bytes(status.bytes_saved)
        ),
    );
    upstreams(&mut page, &status.upstreams);
    downloads(&mut page, &status.downloads);
    page.fact("pruned", &pruned(status));
    page.fact("checked", &checked(status));
    if let Some((at, reason)) = status.refused() {
        page.fact("refused", &format!("the configuration of {}", clock(at)));
        reason.lines().for_each(|line| page.fact("", line));
    }
    if status.log_lines_dropped > 0 {
        page.fact("log", &format!("{} dropped", count(status.log_lines_dropped, "line")));
    }
    match &status.last_error {
        None => page.fact("last error", "none"),
        Some(error) => {
            page.fact(
                "last error",
                &format!("{}: {}", clock(error.at), error.what.lines().next().unwrap_or_default()),
            );
        }
    }
    page.lines
}

struct Page {
    lines: Vec<String>,
    width: Option<usize>,
}

impl Page {
    /// What others sent, an error's text for one, must not steer the terminal.
    fn line(&mut self, line: String) {
        let mut line = line.replace(char::is_control, " ");
        if let Some(width) = self.width
            && line.chars().count() > width
        {
            line = line.chars().take(width.saturating_sub(1)).chain(['…']).collect();
        }
        self.lines.push(line.trim_end().to_owned());
    }

    fn fact(&mut self, label: &str, value: &str) {
        let width = self.width.map_or(usize::MAX, |width| width.saturating_sub(LABEL).max(LABEL));
        for (number, part) in wrapped(value, width).iter().enumerate() {
            let label = if number == 0 { label } else { "" };
            self.line(format!("{label:<LABEL$}{part}"));
        }
    }

    /// A row a line, in order, below one another.
    fn rows<const N: usize>(&self, columns: [Column; N], rows: Vec<[String; N]>) -> Vec<String> {
        let width = self.width.map(|width| width.saturating_sub(2));
        let mut table = Table::new(columns, false, width, Vec::new());
        // Into memory, which never fails.
        let printed = rows.into_iter().try_for_each(|row| table.row(row)).and_then(|()| table.end());
        String::from_utf8_lossy(&printed.unwrap_or_default())
            .lines()
            .map(|line| format!("  {line}"))
            .collect()
    }
}

/// Parts of a text, none longer than `width` unless a word is.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    for word in text.split(' ') {
        let part = parts.last().map_or(0, |part| part.chars().count());
        if part > 0 && part + 1 + word.chars().count() > width {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            if !part.is_empty() {
                part.push(' ');
            }
            part.push_str(word);
        }
    }
    parts
}

fn cache(status: &Status) -> String {
    let mut text = match &status.cache {
        None => "being counted".to_owned(),
        Some(cache) => format!(
            "{}, {} in {} and {}",
            count(cache.images, "image"),
            Bytes(cache.bytes),
            count(cache.manifests, "manifest"),
            count(cache.blobs, "blob")
        ),
    };
    if let Some(pins) = status.pins {
        text += &format!("; {} pinned", Number(pins));
    }
    format!("{text}; in {}", status.image_path)
}

fn disk(status: &Status) -> String {
    let Some(disk) = &status.disk else { return "does not answer".to_owned() };
    let text = format!("{} free of {}", Bytes(disk.free), Bytes(disk.total));
    match disk.min_free {
        None => text,
        Some(least) if disk.free < least => {
            format!("{text}, LESS than the {} that min_free asks for", Bytes(least))
        }
        Some(least) => format!("{text}, min_free asks for {}", Bytes(least)),
    }
}

fn pruned(status: &Status) -> String {
    let Some(round) = &status.last_prune else { return "not since the start".to_owned() };
    let verb = if round.dry_run { "would have removed" } else { "removed" };
    let mut text = match (round.images, round.blobs + round.manifests) {
        (0, 0) => format!("{}: nothing was to go", clock(round.finished)),
        _ => format!(
            "{}: {verb} {}, {}, {} in all",
            clock(round.finished),
            count(round.images, "image"),
            count(round.blobs, "blob"),
            Bytes(round.bytes)
        ),
    };
    if !round.enough {
        text += ", which was not enough";
    }
    text
}

fn checked(status: &Status) -> String {
    match &status.last_check {
        None => "never".to_owned(),
        Some(check) if check.wrong == 0 => format!("{}: nothing wrong", clock(check.finished)),
        Some(check) => {
            format!(
                "{}: {} WRONG, {} repaired",
                clock(check.finished),
                Number(check.wrong),
                Number(check.repaired)
            )
        }
    }
}

fn upstreams(page: &mut Page, all: &[UpstreamStatus]) {
    let mut all: Vec<_> = all.iter().collect();
    // Those in trouble first, then those that are asked most.
    let trouble = |state| !matches!(state, UpstreamState::Failing | UpstreamState::Limited);
    all.sort_by_key(|one| (trouble(one.state), std::cmp::Reverse(one.requests), one.name.clone()));
    if all.is_empty() {
        return page.fact("upstreams", "none asked");
    }
    page.line("upstreams".to_owned());
    let columns = [("", false), ("", false), ("", true), ("", true)].map(|(title, right)| Column {
        title,
        right,
        cut: if right { Cut::Never } else { Cut::End },
    });
    let shown = &all[..all.len().min(ROWS)];
    let row = |one: &&UpstreamStatus| {
        [one.name.clone(), state(one), count(one.requests, "request"), Bytes(one.bytes).to_string()]
    };
    let rows = page.rows(columns, shown.iter().map(row).collect());
    for (one, row) in shown.iter().zip(rows) {
        page.line(row);
        if let (UpstreamState::Failing | UpstreamState::Limited, Some(error)) = (one.state, &one.last_error) {
            page.line(format!("    {}: {}", clock(error.at), error.what));
        }
    }
    more(page, all.len());
}

fn more(page: &mut Page, all: usize) {
    if all > ROWS {
        page.line(format!("  and {} more: --json has all", Number((all - ROWS) as u64)));
    }
}

fn state(one: &UpstreamStatus) -> String {
    let since = one.since.map(clock).unwrap_or_default();
    match (one.state, one.until) {
        (UpstreamState::NeverAsked, _) => "never asked".to_owned(),
        (UpstreamState::Reachable, _) => "reachable".to_owned(),
        (UpstreamState::Failing, _) => format!("FAILING since {since}"),
        (UpstreamState::Limited, Some(until)) => format!("RATE LIMITED until {}", clock(until)),
        (UpstreamState::Limited, None) => format!("RATE LIMITED since {since}"),
    }
}

fn downloads(page: &mut Page, all: &[Underway]) {
    if all.is_empty() {
        return page.fact("downloads", "none under way");
    }
    page.line("downloads".to_owned());
    let cuts = [Cut::Beginning, Cut::Never, Cut::Never, Cut::Never, Cut::Never];
    let right = [false, false, true, true, false];
    let columns = std::array::from_fn(|at| Column { title: "", right: right[at], cut: cuts[at] });
    let shown = &all[..all.len().min(ROWS)];
    for row in page.rows(columns, shown.iter().map(download).collect()) {
        page.line(row);
    }
    more(page, all.len());
}

/// `docker.io/library/app  0123456789ab  12.0 MB of 34.5 MB (34%)  5.1 MB/s  2 clients wait`
fn download(one: &Underway) -> [String; 5] {
    let mut done = Bytes(one.written).to_string();
    if let Some(size) = one.size {
        done += &format!(" of {}", Bytes(size));
        if let Some(percent) = (u128::from(one.written) * 100).checked_div(u128::from(size)) {
            done += &format!(" ({percent}%)");
        }
    }
    let rate = if one.running { format!("{}/s", Bytes(one.rate)) } else { "waiting".to_owned() };
    let clients = match one.readers {
        0 => String::new(),
        readers => plural(readers, "client waits", "clients wait"),
    };
    let digest = one.digest.split_once(':').map_or(&*one.digest, |(_, hex)| hex);
    [format!("{}/{}", one.registry, one.repository), digest.chars().take(12).collect(), done, rate, clients]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_its_place() {
        let text = page(&Status::full(), None).join("\n");
        for part in [
            "ociregistry 2.0.0, process 7, up 5s\nserving on  127.0.0.1:8080\n",
            "cache       1,204 images, 48.1 GB in 3,210 manifests and 9,876 blobs; 3 pinned; in /var/lib/ociregistry\n",
            "disk        120.0 GB free of 500.0 GB, min_free asks for 75.0 GB\n            THE DISK IS FULL since 19",
            "            2 answers are passed on past the disk\n",
            "requests    9, 1 under way; 2 hits, 1 miss, 0 stale\n",
            "bytes       3.5 kB served, 1.0 kB fetched, 2.5 kB saved\n",
            "docker.io/library/app  0123456789ab  12.0 MB of 34.5 MB (34%)  5.1 MB/s  2 clients wait\n",
            "3 images, 10 blobs, 1.0 MB in all, which was not enough\n",
            ": nothing wrong\n",
            "refused     the configuration of 19",
            "log         4 lines dropped\n",
        ] {
            assert!(text.contains(part), "{part}\n---\n{text}");
        }
        let upstreams: Vec<_> =
            text.lines().skip_while(|line| *line != "upstreams").skip(1).take(6).collect();
        assert!(
            upstreams[0].starts_with("  ghcr.io ") && upstreams[0].contains("RATE LIMITED until 19"),
            "{text}"
        );
        assert!(
            upstreams[2].starts_with("  quay.io ") && upstreams[2].contains("FAILING since 19"),
            "{text}"
        );
        assert!(upstreams[3].ends_with(": quay.io: cannot connect"), "{text}");
        assert!(
            upstreams[4].starts_with("  docker.io ") && upstreams[4].contains("  1,234 requests  5.0 MB")
        );
        assert!(upstreams[5].starts_with("  registry.example:5000  never asked"), "{text}");
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        for width in [1, 10, 20, 40, 79, 80, 200] {
            for line in page(&Status::full(), Some(width)) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
        let text = page(&Status::full(), Some(40)).join("\n");
        assert!(text.contains("cache       1,204 images, 48.1 GB in\n            3,210 manifests"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_said_to_be_so() {
        let status = Status {
            cache: None,
            disk: None,
            pins: None,
            last_check: None,
            last_prune: None,
            ..Status::full()
        };
        let text = page(&status, None).join("\n");
        for part in [
            "cache       being counted; in /",
            "disk        does not answer",
            "pruned      not since",
            "never\n",
        ] {
            assert!(text.contains(part), "{part}\n---\n{text}");
        }
    }

    #[test]
    fn what_others_sent_does_not_steer_the_terminal() {
        let mut status = Status::full();
        status.last_error.as_mut().unwrap().what = "\u{1b}[2J\tgone\u{7}".to_owned();
        status.upstreams[1].last_error.as_mut().unwrap().what = "two\nlines\u{9b}".to_owned();
        assert!(page(&status, None).iter().all(|line| !line.contains(char::is_control)));
    }

    #[test]
    fn long_tables_are_cut() {
        let mut status = Status::full();
        status.downloads = vec![status.downloads[0].clone(); ROWS + 7];
        let text = page(&status, None).join("\n");
        assert!(text.contains("  and 7 more: --json has all"), "{text}");
    }
}
