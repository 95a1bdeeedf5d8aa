//! The engine's snapshot as OpenMetrics text.

use std::{fmt, path::Path, sync::Arc};

use monitor_core::{
    engine::Snapshot,
    metric::{ALL, MetricKind, Value},
};
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, LabelSetEncoder, NoLabelSet,
        text::encode,
    },
    metrics::MetricType,
    registry::Registry,
};

use super::{process, web::Counts};

/// Content type of [`render`]'s text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a snapshot, of this process and its HTTP server, and of the node.
pub(super) fn render(
    snapshot: Arc<Snapshot>,
    counts: &Counts,
    reboot: &Path,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Rows(snapshot)));
    process::register(&mut registry);
    process::register_web(&mut registry, counts);
    process::register_node(&mut registry, reboot);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Rows(Arc<Snapshot>);

/// Names and values of a sample's labels.
struct Labels<'a>(&'a [(&'static str, &'a str)]);

// === impl Rows ===

impl Collector for Rows {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for definition in ALL {
            let kind = match definition.kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
            };
            // The encoder adds `_total` to counters and a full stop to the help.
            let help = definition.help.trim_end_matches('.');
            let mut metric = encoder.encode_descriptor(definition.base_name(), help, None, kind)?;
            self.0.rows.samples(definition.metric, |labels, value| {
                let labels = Labels(labels);
                let mut sample = metric.encode_family(&labels)?;
                match value {
                    Value::Counter(value) => {
                        sample.encode_counter::<NoLabelSet, _, u64>(&value, None)
                    }
                    Value::Gauge(value) => sample.encode_gauge(&value),
                }
            })?;
        }
        Ok(())
    }
}

// === impl Labels ===

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        for label in self.0 {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use monitor_core::engine::{Config, Engine};

    use super::*;

    #[test]
    fn every_metric_is_described_once() {
        let engine = Engine::new(Config::default()).expect("no ranges");
        let text = render(
            Arc::new(engine.snapshot()),
            &Counts::default(),
            Path::new("/nowhere/file"),
        );
        let text = text.expect("strings take all");
        for definition in ALL {
            let line = format!(
                "# TYPE {} {}\n",
                definition.base_name(),
                definition.kind.name()
            );
            assert_eq!(text.matches(&line).count(), 1, "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(!text.contains("_total_total"), "{text}");
    }
}
