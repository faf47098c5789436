//! Files and pipes as OTLP requests, one at a time.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use prost::Message;
use serde::{Deserialize, de::IgnoredAny};
use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
};

/// Largest request that is read, bytes: as much as a server takes.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 18;

/// Where a request stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    /// From 1; `None` where the file is one request.
    pub line: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file.display()),
            None => write!(f, "{}", self.file.display()),
        }
    }
}

/// What a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Traces,
    Logs,
    /// Metrics, which are not kept.
    Metrics,
}

/// One request as it is sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub place: Place,
    pub signal: Signal,
    pub is_json: bool,
    /// Spans or log records.
    pub items: u64,
    pub body: Bytes,
}

/// What stands in a file.
#[derive(Debug)]
pub enum Found {
    Request(Request),
    /// Not a request, and why.
    Bad(Place, String),
    /// Metrics.
    Unkept,
}

/// All files, in their order.
pub struct Source {
    files: Vec<PathBuf>,
}

/// Takes what was found; false if nobody wants more.
type Take<'a> = &'a mut dyn FnMut(Found) -> bool;

impl Source {
    pub const fn new(files: Vec<PathBuf>) -> Self {
        Self { files }
    }

    /// Hands over everything, until `take` wants no more.
    pub fn read(&self, take: Take<'_>) {
        for file in &self.files {
            let place = Place {
                file: file.clone(),
                line: None,
            };
            let goes_on = match open(file).and_then(|input| read_file(file, input, take)) {
                Ok(goes_on) => goes_on,
                Err(error) => take(Found::Bad(place, format!("cannot be read: {error}"))),
            };
            if !goes_on {
                return;
            }
        }
    }
}

type Input = Box<dyn BufRead>;

/// The file, unpacked.
fn open(file: &Path) -> io::Result<Input> {
    let raw: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => Box::new(File::open(file)?),
    };
    let mut raw = BufReader::with_capacity(BUFFER_BYTES, raw);
    let mut head = [0; 4];
    let n = read_up_to(&mut raw, &mut head)?;
    let whole = Cursor::new(head[..n].to_vec()).chain(raw);
    Ok(match &head[..n] {
        [0x1f, 0x8b, ..] => Box::new(buffered(flate2::read::MultiGzDecoder::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(buffered(zstd::stream::read::Decoder::new(whole)?)),
        _ => Box::new(whole),
    })
}

fn buffered<R: Read>(input: R) -> BufReader<R> {
    BufReader::with_capacity(BUFFER_BYTES, input)
}

/// Fills `bytes` as far as there is something.
fn read_up_to(input: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match input.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn read_file(file: &Path, mut input: Input, take: Take<'_>) -> io::Result<bool> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = |part: &str| name.split('.').any(|found| found == part);
    if named("json") || named("jsonl") || named("ndjson") {
        return read_json(file, input, take);
    }
    // The first byte of a protobuf request is 0x0a, which a text may begin with too.
    let first = input.fill_buf()?.first().copied();
    if !named("pb") && first.is_none_or(|byte| byte != 0x0a) {
        return read_json(file, input, take);
    }
    let place = Place {
        file: file.to_owned(),
        line: None,
    };
    let Some(body) = read_whole(&mut input)? else {
        return Ok(take(Found::Bad(place, too_large())));
    };
    match protobuf(name, &body) {
        Some(found) => Ok(take(request(place, found, false, body.into()))),
        None if named("pb") => Ok(take(Found::Bad(
            place,
            "is no OTLP request of traces or logs".to_owned(),
        ))),
        None => read_json(file, Box::new(Cursor::new(body)), take),
    }
}

fn too_large() -> String {
    format!("is larger than {} MiB: split it", REQUEST_BYTES_MAX >> 20)
}

/// Everything that is left; `None` if it is too much.
fn read_whole(input: &mut Input) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    let mut limited = input.take(REQUEST_BYTES_MAX as u64 + 1);
    limited.read_to_end(&mut body)?;
    Ok((body.len() <= REQUEST_BYTES_MAX).then_some(body))
}

/// Which message it is, and how many items it has: by its name, else by which of them it can be read as.
fn protobuf(name: &str, body: &[u8]) -> Option<(Signal, u64)> {
    let as_traces = || {
        let request = ExportTraceServiceRequest::decode(body).ok()?;
        let spans = || {
            request
                .resource_spans
                .iter()
                .flat_map(|r| &r.scope_spans)
                .flat_map(|s| &s.spans)
        };
        // The messages look alike from outside, but a log record has no id where a span has its own.
        let has_ids = spans().all(|span| span.trace_id.len() == 16 && span.span_id.len() == 8);
        (has_ids && spans().count() > 0).then(|| (Signal::Traces, spans().count() as u64))
    };
    let as_logs = || {
        let request = ExportLogsServiceRequest::decode(body).ok()?;
        let records = request
            .resource_logs
            .iter()
            .flat_map(|r| &r.scope_logs)
            .flat_map(|s| &s.log_records);
        Some((Signal::Logs, records.count() as u64)).filter(|(_, n)| *n > 0)
    };
    let as_metrics = || {
        ExportMetricsServiceRequest::decode(body)
            .ok()
            .map(|_| (Signal::Metrics, 0))
    };
    let by_name = |word| name.split(['.', '-', '_']).any(|part| part == word);
    if by_name("traces") {
        let request = ExportTraceServiceRequest::decode(body).ok()?;
        let spans = request
            .resource_spans
            .iter()
            .flat_map(|r| &r.scope_spans)
            .map(|s| s.spans.len() as u64);
        Some((Signal::Traces, spans.sum()))
    } else if by_name("logs") {
        as_logs()
    } else if by_name("metrics") {
        as_metrics()
    } else {
        as_traces().or_else(as_logs).or_else(as_metrics)
    }
}

fn request(place: Place, (signal, items): (Signal, u64), is_json: bool, body: Bytes) -> Found {
    if signal == Signal::Metrics {
        return Found::Unkept;
    }
    Found::Request(Request {
        place,
        signal,
        is_json,
        items,
        body,
    })
}

/// One object a line; or the whole file one object, written over several lines.
fn read_json(file: &Path, mut input: Input, take: Take<'_>) -> io::Result<bool> {
    let mut number = 0;
    let mut line = Vec::new();
    loop {
        number += 1;
        line.clear();
        let mut limited = (&mut input).take(REQUEST_BYTES_MAX as u64 + 1);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(true);
        }
        let place = |line| Place {
            file: file.to_owned(),
            line,
        };
        if line.len() > REQUEST_BYTES_MAX {
            skip_line(&mut input)?;
            if !take(Found::Bad(place(Some(number)), too_large())) {
                return Ok(false);
            }
            continue;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let parsed = serde_json::from_slice::<Export>(&line);
        if parsed.as_ref().is_err_and(|error| error.is_eof()) && number == 1 {
            let mut rest = std::mem::take(&mut line);
            let Some(more) = read_whole(&mut input)? else {
                return Ok(take(Found::Bad(place(None), too_large())));
            };
            let first_line = rest.len();
            rest.extend(more);
            if let Ok(export) = serde_json::from_slice::<Export>(&rest) {
                return Ok(export.found(&place(None), rest.into()).into_iter().all(take));
            }
            // A first line that was cut off; the others may be whole.
            input = Box::new(Cursor::new(rest.split_off(first_line)));
        }
        let goes_on = match parsed {
            Ok(export) => {
                let body = Bytes::copy_from_slice(line.trim_ascii());
                export.found(&place(Some(number)), body).into_iter().all(&mut *take)
            }
            Err(error) => take(Found::Bad(place(Some(number)), format!("is no OTLP/JSON: {error}"))),
        };
        if !goes_on {
            return Ok(false);
        }
    }
}

fn skip_line(input: &mut Input) -> io::Result<()> {
    loop {
        let (used, done) = {
            let bytes = input.fill_buf()?;
            match bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (bytes.len(), bytes.is_empty()),
            }
        };
        input.consume(used);
        if done {
            return Ok(());
        }
    }
}

/// An object of OTLP/JSON, as far as it must be known to be sent. Items are counted and not kept.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Export {
    resource_spans: Option<Vec<Resource>>,
    resource_logs: Option<Vec<Resource>>,
    resource_metrics: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    #[serde(default)]
    scope_spans: Vec<Items>,
    #[serde(default)]
    scope_logs: Vec<Items>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Items {
    #[serde(default)]
    spans: Vec<IgnoredAny>,
    #[serde(default)]
    log_records: Vec<IgnoredAny>,
}

impl Export {
    fn found(&self, place: &Place, body: Bytes) -> Vec<Found> {
        let mut found = Vec::new();
        let mut put = |signal, items| found.push(request(place.clone(), (signal, items), true, body.clone()));
        if let Some(resources) = &self.resource_spans {
            let items = resources
                .iter()
                .flat_map(|r| &r.scope_spans)
                .map(|s| s.spans.len() as u64);
            put(Signal::Traces, items.sum());
        }
        if let Some(resources) = &self.resource_logs {
            let items = resources
                .iter()
                .flat_map(|r| &r.scope_logs)
                .map(|s| s.log_records.len() as u64);
            put(Signal::Logs, items.sum());
        }
        if self.resource_metrics.is_some() {
            put(Signal::Metrics, 0);
        }
        if found.is_empty() {
            let why = "has none of resourceSpans, resourceLogs, resourceMetrics".to_owned();
            found.push(Found::Bad(place.clone(), why));
        }
        found
    }
}
