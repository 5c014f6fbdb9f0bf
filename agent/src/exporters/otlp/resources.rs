//! Resources and attributes as messages of OTLP.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};

use crate::exporters::resource::{AttributeValue, Attributes};

pub(super) fn resource(attributes: Attributes) -> Resource {
    let attributes = attributes.into_iter().map(|(name, value)| attribute(name, any_value(value))).collect();
    Resource { attributes, ..Resource::default() }
}

fn any_value(value: AttributeValue) -> Value {
    match value {
        AttributeValue::Text(text) => Value::StringValue(text),
        AttributeValue::Texts(texts) => {
            let text = |text| AnyValue { value: Some(Value::StringValue(text)) };
            Value::ArrayValue(ArrayValue { values: texts.into_iter().map(text).collect() })
        }
    }
}

/// An attribute of a resource or a point.
pub(super) fn attribute(key: String, value: Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// The instrumentation scope: the agent.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}
