//! What `terraform providers schema -json` prints, as far as it is documented. Terraform leaves out what is false or
//! empty.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One provider: what the pages are made from.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ProviderSchema {
    pub(crate) provider: Schema,
    pub(crate) resource_schemas: BTreeMap<String, Schema>,
    pub(crate) data_source_schemas: BTreeMap<String, Schema>,
    pub(crate) ephemeral_resource_schemas: BTreeMap<String, Schema>,
    pub(crate) functions: BTreeMap<String, Function>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Schema {
    pub(crate) block: Block,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Block {
    pub(crate) attributes: BTreeMap<String, Attribute>,
    pub(crate) block_types: BTreeMap<String, BlockType>,
    pub(crate) description: String,
    pub(crate) deprecated: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct BlockType {
    pub(crate) nesting_mode: Nesting,
    #[serde(default)]
    pub(crate) block: Block,
    #[serde(default)]
    pub(crate) min_items: u64,
    #[serde(default)]
    pub(crate) max_items: u64,
}

/// It has either a `type` or a `nested_type`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Attribute {
    pub(crate) r#type: Option<Type>,
    pub(crate) nested_type: Option<NestedType>,
    pub(crate) description: String,
    pub(crate) required: bool,
    pub(crate) optional: bool,
    pub(crate) sensitive: bool,
    pub(crate) write_only: bool,
    pub(crate) deprecated: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct NestedType {
    pub(crate) nesting_mode: Nesting,
    pub(crate) attributes: BTreeMap<String, Attribute>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Nesting {
    Single,
    Group,
    List,
    Set,
    Map,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Function {
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) summary: String,
    #[serde(default)]
    pub(crate) deprecation_message: String,
    pub(crate) return_type: Type,
    #[serde(default)]
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) variadic_parameter: Option<Parameter>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: String,
    pub(crate) r#type: Type,
    #[serde(default)]
    pub(crate) is_nullable: bool,
}

/// A type of Terraform's language: `"string"`, `["list", "string"]`, `["object", {"a": "string"}]`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) enum Type {
    String,
    Number,
    Bool,
    Dynamic,
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>),
    Tuple,
    Object(BTreeMap<String, Type>),
}

impl Type {
    /// As in lists of attributes: `List of String`.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::String => "String".to_owned(),
            Self::Number => "Number".to_owned(),
            Self::Bool => "Boolean".to_owned(),
            Self::Dynamic => "Dynamic".to_owned(),
            Self::List(element) => format!("List of {}", element.name()),
            Self::Set(element) => format!("Set of {}", element.name()),
            Self::Map(element) => format!("Map of {}", element.name()),
            Self::Tuple => "Tuple".to_owned(),
            Self::Object(_) => "Object".to_owned(),
        }
    }

    /// As in the signature of a function: `list of string`, and `bool` as it is written there.
    pub(crate) fn in_signature(&self) -> String {
        self.name().to_lowercase().replace("boolean", "bool")
    }

    /// The fields, where it is an object or has objects in it.
    pub(crate) fn fields(&self) -> Option<&BTreeMap<String, Type>> {
        match self {
            Self::Object(fields) => Some(fields),
            Self::List(element) | Self::Set(element) | Self::Map(element) => element.fields(),
            Self::String | Self::Number | Self::Bool | Self::Dynamic | Self::Tuple => None,
        }
    }
}

impl TryFrom<Value> for Type {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let unknown = format!("{value} is no type of Terraform's");
        let parts = match value {
            Value::String(name) => {
                return match name.as_str() {
                    "string" => Ok(Self::String),
                    "number" => Ok(Self::Number),
                    "bool" => Ok(Self::Bool),
                    "dynamic" => Ok(Self::Dynamic),
                    _ => Err(unknown),
                };
            }
            Value::Array(parts) => parts,
            _ => return Err(unknown),
        };
        let mut parts = parts.into_iter();
        let (Some(Value::String(kind)), Some(inner)) = (parts.next(), parts.next()) else {
            return Err(unknown);
        };
        let element = |inner| Self::try_from(inner).map(Box::new);
        match (kind.as_str(), inner) {
            ("list", inner) => Ok(Self::List(element(inner)?)),
            ("set", inner) => Ok(Self::Set(element(inner)?)),
            ("map", inner) => Ok(Self::Map(element(inner)?)),
            ("tuple", _) => Ok(Self::Tuple),
            ("object", Value::Object(fields)) => {
                let field = |(name, ty)| Ok((name, Self::try_from(ty)?));
                fields.into_iter().map(field).collect::<Result<_, String>>().map(Self::Object)
            }
            _ => Err(unknown),
        }
    }
}
