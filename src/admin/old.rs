//! Commands by the names that the Go program of this name had for them: `/cmd/…`, with a query, answered in columns, or
//! as JSON to who accepts that.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use url::form_urlencoded;

use super::answer::{Body, Broken, Cause, Complaint, Line, json, line, not_by_this_method, stream, whole};
use super::table::Table;
use super::text::{Row, megabytes, summary};
use super::work::{Asker, Worker};
use crate::config::duration;
use crate::store::care::{
    BlobsRequest, ListReport, ListRequest, ListedImage, ListedType, PruneReport, PruneRequest,
};

/// Rows, or images that go, where nothing is said of them.
const COUNT: u64 = 50;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// With an answer after which the daemon ends.
#[derive(Clone, Copy)]
pub struct Ends;

/// Answers what is asked under `/cmd/`.
pub async fn answer<B>(worker: &Worker, request: &Request<B>, asker: &Asker) -> Response<Body> {
    let form = match wants_json(request) {
        true => Form::Json,
        false => Form::Text,
    };
    let mut query = match Query::new(request.uri().query().unwrap_or_default()) {
        Ok(query) => query,
        Err(complaint) => return form.error(complaint),
    };
    let answer = match (request.method(), request.uri().path()) {
        (&Method::GET, "/cmd/manifest/list") => match query.manifests() {
            Ok(request) => rows(worker.begin(request, *asker), form, |_| Vec::new()).await,
            Err(complaint) => Err(complaint),
        },
        (&Method::GET, "/cmd/image/list") => match query.images() {
            Ok(request) => rows(worker.begin(request, *asker), form, blobs_of).await,
            Err(complaint) => Err(complaint),
        },
        (&Method::GET, "/cmd/blob/list") => match query.blobs() {
            Ok(request) => rows(worker.begin(request, *asker), form, |_| Vec::new()).await,
            Err(complaint) => Err(complaint),
        },
        (&Method::DELETE, "/cmd/prune") => match query.prune() {
            Ok(request) => pruned(worker.begin(request, *asker), form).await,
            Err(complaint) => Err(complaint),
        },
        (&Method::GET, "/cmd/stop") => query.end(&[]).map(|()| stop(form, asker)),
        (_, "/cmd/prune") => return not_by_this_method("DELETE"),
        (_, "/cmd/manifest/list" | "/cmd/image/list" | "/cmd/blob/list" | "/cmd/stop") => {
            return not_by_this_method("GET");
        }
        (_, path) => return Complaint::new(Cause::Command, format!("no such command: {path}")).respond(),
    };
    answer.unwrap_or_else(|complaint| form.error(complaint))
}

fn wants_json<B>(request: &Request<B>) -> bool {
    let accepted = request.headers().get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let mut types = accepted.flat_map(|value| value.split(','));
    types.any(|range| range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(JSON)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

impl Form {
    fn media_type(self) -> &'static str {
        match self {
            Self::Text => TEXT,
            Self::Json => JSON,
        }
    }

    fn error(self, complaint: Complaint) -> Response<Body> {
        match self {
            Self::Text => whole(complaint.kind.status(), TEXT, Bytes::from(format!("{complaint}\n"))),
            Self::Json => complaint.respond(),
        }
    }
}

/// What is said behind the `?`.
struct Query(Vec<(String, String)>);

impl Query {
    fn new(text: &str) -> Result<Self, Complaint> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(other, _)| other == name) {
                return Err(Complaint::request(format!("{name} is given more than once")));
            }
        }
        Ok(Self(pairs))
    }

    /// None where it is not given, or empty.
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(given, _)| given == name)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.is_empty())
    }

    /// Regular expressions with commas between them.
    fn patterns(&mut self, name: &str) -> Vec<String> {
        self.take(name).map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }

    /// 0 is all.
    fn count(&mut self) -> Result<u64, Complaint> {
        match self.take("count").as_deref().map(|text| (text, text.parse::<i64>())) {
            None => Ok(COUNT),
            Some((_, Ok(-1))) => Ok(0),
            Some((_, Ok(count))) if count > 0 => Ok(count.unsigned_abs()),
            Some((text, _)) => Err(wrong("count", text, "a number above 0, or -1 for all")),
        }
    }

    /// Nothing else may be given.
    fn end(&self, known: &[&str]) -> Result<(), Complaint> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) if known.is_empty() => {
                Err(Complaint::request(format!("unknown parameter {name:?}, want none")))
            }
            Some((name, _)) => {
                Err(Complaint::request(format!("unknown parameter {name:?}, want {}", known.join(", "))))
            }
        }
    }

    fn manifests(&mut self) -> Result<ListRequest, Complaint> {
        let (patterns, count) = (self.patterns("pattern"), self.count()?);
        self.end(&["pattern", "count"])?;
        Ok(ListRequest { patterns, count, ..ListRequest::default() })
    }

    fn images(&mut self) -> Result<ListRequest, Complaint> {
        let (patterns, of_blob, count) = (self.patterns("pattern"), self.take("digest"), self.count()?);
        self.end(&["pattern", "digest", "count"])?;
        let kind = Some(ListedType::Image);
        Ok(ListRequest { patterns, of_blob, count, kind, blobs: true, ..ListRequest::default() })
    }

    fn blobs(&mut self) -> Result<BlobsRequest, Complaint> {
        let (part, count) = (self.take("substr"), self.count()?);
        self.end(&["substr", "count"])?;
        let patterns = part.map(|part| regex::escape(&part)).into_iter().collect();
        Ok(BlobsRequest { patterns, count, ..BlobsRequest::default() })
    }

    fn prune(&mut self) -> Result<PruneRequest, Complaint> {
        const KINDS: &str = "accessed, created or pattern";
        let kind =
            self.take("type").ok_or_else(|| Complaint::request(format!("type is missing, want {KINDS}")))?;
        let (age, expressions, count) = (self.age()?, self.patterns("expr"), self.count()?);
        let dry_run = match self.take("dryRun").as_deref() {
            None | Some("true") => true,
            Some("false") => false,
            Some(text) => return Err(wrong("dryRun", text, "true or false")),
        };
        self.end(&["type", "dur", "expr", "count", "dryRun"])?;
        let request = PruneRequest { count, dry_run, ..PruneRequest::default() };
        let nothing = |name: &str| Complaint::request(format!("{name} has no meaning with type={kind}"));
        let missing = || Complaint::request(format!("dur is missing, want {DURATION}"));
        match kind.as_str() {
            "accessed" | "created" if !expressions.is_empty() => Err(nothing("expr")),
            "accessed" => Ok(PruneRequest { unused_since: Some(age.ok_or_else(missing)?), ..request }),
            "created" => Ok(PruneRequest { created_before: Some(age.ok_or_else(missing)?), ..request }),
            "pattern" if age.is_some() => Err(nothing("dur")),
            "pattern" if expressions.is_empty() => {
                Err(Complaint::request("expr is missing, want regular expressions with commas between them"))
            }
            "pattern" => Ok(PruneRequest { patterns: expressions, ..request }),
            other => Err(wrong("type", other, KINDS)),
        }
    }

    /// `dur`, as when that was.
    fn age(&mut self) -> Result<Option<Timestamp>, Complaint> {
        let Some(text) = self.take("dur") else { return Ok(None) };
        let age = duration(&text).filter(|age| *age > Duration::ZERO);
        let age = age.ok_or_else(|| wrong("dur", &text, DURATION))?;
        Ok(Some(Timestamp::now() - SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX)))
    }
}

const DURATION: &str = "a duration such as 30d, 12h or 10m";

fn wrong(name: &str, found: &str, want: &str) -> Complaint {
    Complaint::request(format!("{name}: found {found:?}, want {want}"))
}

type Told<I, D> = tokio::sync::mpsc::Receiver<Line<I, D>>;

/// The rows of a list; `more` are cells of further rows below one.
async fn rows<const N: usize, R: Row<N> + Send + 'static>(
    told: Told<R, ListReport>,
    form: Form,
    more: fn(&R) -> Vec<[String; N]>,
) -> Result<Response<Body>, Complaint> {
    match form {
        Form::Text => {
            let mut table = Some(Table::new(R::columns(), false, None, Vec::new()));
            let print = move |told| -> Result<Bytes, Broken> {
                let to_memory = |_: io::Error| Broken;
                match told {
                    Line::Item(row) => {
                        let table = table.as_mut().ok_or(Broken)?;
                        table.row(R::cells(&row, false)).map_err(to_memory)?;
                        more(&row).into_iter().try_for_each(|cells| table.row(cells)).map_err(to_memory)?;
                        Ok(std::mem::take(table.out()).into())
                    }
                    Line::Note(_) => Ok(Bytes::new()),
                    Line::Done(_) => Ok(table.take().ok_or(Broken)?.end().map_err(to_memory)?.into()),
                    Line::Error(_) => Err(Broken),
                }
            };
            stream(told, form.media_type(), print).await
        }
        Form::Json => {
            let mut before = "[";
            let print = move |told| match told {
                Line::Item(row) => Ok(piece(std::mem::replace(&mut before, ","), &row, "")),
                Line::Note(_) => Ok(Bytes::new()),
                Line::Done(_) if before == "[" => Ok(Bytes::from_static(b"[]\n")),
                Line::Done(_) => Ok(Bytes::from_static(b"]\n")),
                Line::Error(_) => Err(Broken),
            };
            stream(told, form.media_type(), print).await
        }
    }
}

/// A row for each blob of an image.
fn blobs_of(row: &ListedImage) -> Vec<[String; 6]> {
    let none = || "-".to_owned();
    let blobs = row.blobs.iter().flatten();
    blobs
        .map(|blob| {
            let (digest, kind) = (blob.digest.to_string(), "blob".to_owned());
            [row.image.clone(), digest, kind, none(), none(), megabytes(blob.size)]
        })
        .collect()
}

async fn pruned(told: Told<String, PruneReport>, form: Form) -> Result<Response<Body>, Complaint> {
    match form {
        Form::Text => {
            let print = |told| match told {
                Line::Item(image) => Ok(Bytes::from(format!("{image}\n"))),
                Line::Note(_) => Ok(Bytes::new()),
                Line::Done(report) => Ok(Bytes::from(format!("{}\n", summary(&report)))),
                Line::Error(_) => Err(Broken),
            };
            stream(told, form.media_type(), print).await
        }
        Form::Json => {
            let mut before = "{\"images\":[";
            let print = move |told| match told {
                Line::Item(image) => Ok(piece(std::mem::replace(&mut before, ","), &image, "")),
                Line::Note(_) => Ok(Bytes::new()),
                Line::Done(report) => {
                    let begin = if before == "," { "" } else { before };
                    Ok(piece(&format!("{begin}],\"report\":"), &report, "}\n"))
                }
                Line::Error(_) => Err(Broken),
            };
            stream(told, form.media_type(), print).await
        }
    }
}

/// JSON with something before and behind it.
fn piece(before: &str, value: &impl serde::Serialize, behind: &str) -> Bytes {
    [before.as_bytes(), &line(value), behind.as_bytes()].concat().into()
}

fn stop(form: Form, asker: &Asker) -> Response<Body> {
    tracing::info!("by {asker}: told to end");
    let mut response = match form {
        Form::Text => whole(StatusCode::OK, TEXT, Bytes::from_static(b"the daemon ends\n")),
        Form::Json => json(StatusCode::OK, &serde_json::json!({ "ends": true })),
    };
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response.extensions_mut().insert(Ends);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::new(text).unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let request = query("").manifests().unwrap();
        assert_eq!(request, ListRequest { count: 50, ..ListRequest::default() });
        assert_eq!(query("count=-1").manifests().unwrap().count, 0);
        assert_eq!(query("pattern=a%3A1,b").manifests().unwrap().patterns, ["a:1", "b"]);
        assert_eq!(query("substr=a.b").blobs().unwrap().patterns, ["a\\.b"]);
        let request = query("digest=abc&count=3").images().unwrap();
        assert_eq!((request.of_blob.as_deref(), request.count), (Some("abc"), 3));
        let request = query("type=pattern&expr=a,b").prune().unwrap();
        assert_eq!((request.dry_run, request.count, request.patterns.len()), (true, 50, 2));
        let request = query("type=accessed&dur=1h&dryRun=false&count=-1").prune().unwrap();
        assert!(!request.dry_run && request.count == 0 && request.created_before.is_none());
        let ago = Timestamp::now().duration_since(request.unused_since.unwrap());
        assert!((3600..3700).contains(&ago.as_secs()));
        assert!(query("type=created&dur=30d").prune().unwrap().created_before.is_some());
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_wanted() {
        let prune = |text: &str| query(text).prune().unwrap_err().to_string();
        for (text, said) in [
            ("", "type is missing, want accessed, created or pattern"),
            ("type=old&dur=1d", "type: found \"old\", want accessed, created or pattern"),
            ("type=accessed", "dur is missing, want a duration such as 30d"),
            ("type=created&dur=soon", "dur: found \"soon\", want a duration such as 30d"),
            ("type=created&dur=0s", "dur: found \"0s\", want a duration"),
            ("type=created&dur=1d&expr=a", "expr has no meaning with type=created"),
            ("type=pattern&expr=a&dur=1d", "dur has no meaning with type=pattern"),
            ("type=pattern", "expr is missing, want regular expressions"),
            ("type=pattern&expr=a&dryRun=no", "dryRun: found \"no\", want true or false"),
            ("type=pattern&expr=a&count=0", "count: found \"0\", want a number above 0, or -1 for all"),
            (
                "type=pattern&expr=a&dryrun=false",
                "unknown parameter \"dryrun\", want type, dur, expr, count, dryRun",
            ),
        ] {
            assert!(prune(text).starts_with(said), "{text}: {}", prune(text));
        }
        assert!(query("count=x").manifests().is_err() && query("a=1").blobs().is_err());
        assert!(Query::new("count=1&count=2").is_err_and(|e| e.message == "count is given more than once"));
    }
}
