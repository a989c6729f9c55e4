//! A value as it was written, before it is known whether it fits its setting.

use toml::de::DeValue;

/// What a source says, in the source's own kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i128),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array.
    List(Vec<Raw>),
    /// TOML of a kind that no setting has: its name, and how it was written.
    Other(&'static str, String),
    /// An environment variable: it is what its setting makes of it.
    Words(String),
}

impl Raw {
    pub(super) fn from_toml(value: &DeValue<'_>) -> Raw {
        match value {
            DeValue::String(text) => Raw::Text(text.clone().into_owned()),
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Raw::Other("a huge number", number.to_string()), Raw::Integer),
            DeValue::Boolean(flag) => Raw::Bool(*flag),
            DeValue::Array(items) => Raw::List(items.iter().map(|item| Raw::from_toml(item.get_ref())).collect()),
            DeValue::Float(number) => Raw::Other("a number with a fraction", number.to_string()),
            DeValue::Datetime(time) => Raw::Other("a date or time", time.to_string()),
            DeValue::Table(_) => Raw::Other("a table", "{…}".to_owned()),
        }
    }

    /// As it was written, on one line.
    pub(super) fn shown(&self) -> String {
        match self {
            Raw::Text(text) | Raw::Words(text) => format!("{text:?}"),
            Raw::Integer(number) => number.to_string(),
            Raw::Bool(flag) => flag.to_string(),
            Raw::List(items) => format!("[{}]", items.iter().map(Raw::shown).collect::<Vec<_>>().join(", ")),
            Raw::Other(_, written) => written.clone(),
        }
    }

    /// What kind of value this is, for "… is wanted, this is …".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Raw::Text(_) | Raw::Words(_) => "text",
            Raw::Integer(_) => "a bare number",
            Raw::Bool(_) => "true or false",
            Raw::List(_) => "a list",
            Raw::Other(kind, _) => kind,
        }
    }
}
