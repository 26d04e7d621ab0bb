//! `tracing` as go-plugin reads it: a JSON object a line on standard error, filtered by `TF_LOG_PROVIDER` or `TF_LOG`.

use std::fmt;
use std::io::Write as _;
use std::time::SystemTime;

use serde_json::{Map, Value as Json};
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// Targets of the libraries below the server: they log each HTTP/2 frame.
const NOISY: &[&str] = &["h2", "hyper", "tonic", "tower", "rustls"];

/// Starts logging, and makes panics look as Terraform expects them. Events whose target begins with one of `quiet` are
/// left out.
pub(super) fn install(provider: &'static str, quiet: &'static [&'static str]) {
    let module = format!("provider.{provider}");
    let subscriber = tracing_subscriber::registry().with(Lines { module, quiet }.with_filter(level()));
    // A program that embeds the server may have set its own subscriber; then that one stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    std::panic::set_hook(Box::new(|info| {
        // Terraform recognises a panic by this word and prints what follows.
        eprintln!("panic: {info}\n\n{}", std::backtrace::Backtrace::force_capture());
    }));
}

/// The level that the user asked for. Below it, events are not even formatted.
fn level() -> LevelFilter {
    let wanted = ["TF_LOG_PROVIDER", "TF_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    match wanted.unwrap_or_default().to_ascii_uppercase().as_str() {
        "TRACE" | "JSON" => LevelFilter::TRACE,
        "DEBUG" => LevelFilter::DEBUG,
        "INFO" => LevelFilter::INFO,
        "WARN" => LevelFilter::WARN,
        "ERROR" => LevelFilter::ERROR,
        _ => LevelFilter::OFF,
    }
}

struct Lines {
    module: String,
    quiet: &'static [&'static str],
}

/// The fields of a span, kept for the events inside it.
struct Fields(Map<String, Json>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Map::new();
        attributes.record(&mut Collect(&mut fields));
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Fields(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let target = event.metadata().target();
        if NOISY.iter().chain(self.quiet).any(|prefix| target.starts_with(prefix)) {
            return;
        }
        let mut line = Map::new();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(Fields(fields)) = span.extensions().get() {
                line.extend(fields.clone());
            }
        }
        event.record(&mut Collect(&mut line));
        let message = line.remove("message").map(|message| match message {
            Json::String(text) => text,
            other => other.to_string(),
        });
        line.insert("@level".into(), event.metadata().level().to_string().to_ascii_lowercase().into());
        line.insert("@message".into(), message.unwrap_or_default().into());
        line.insert("@module".into(), self.module.clone().into());
        line.insert("@timestamp".into(), timestamp(SystemTime::now()).into());
        // One write a line: several processes share this pipe.
        let _ = std::io::stderr().write_all(format!("{}\n", Json::Object(line)).as_bytes());
    }
}

/// Puts fields into a JSON object.
struct Collect<'a>(&'a mut Map<String, Json>);

impl Visit for Collect<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

/// `2026-11-23T18:18:27.300123Z`: with any other number of digits go-plugin takes the line for plain text.
fn timestamp(now: SystemTime) -> String {
    let now = OffsetDateTime::from(now);
    let (hour, minute, second, microsecond) = now.time().as_hms_micro();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{microsecond:06}Z", now.date())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_have_six_digits() {
        let at = |micros| timestamp(SystemTime::UNIX_EPOCH + Duration::from_micros(micros));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(1_795_457_907_300_123), "2026-11-23T18:18:27.300123Z");
        assert_eq!(at(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
    }
}
