//! Functions: `provider::NAME::function(…)` in expressions. They depend on their arguments alone.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Path, Step, Type, Value, from_value, to_value};

/// A function. It must be pure: Terraform calls it often, before the provider is configured, and compares the results.
pub trait Function: Send + Sync + 'static {
    /// Its name.
    const NAME: &'static str;
    /// Its arguments in order: a tuple, whose last element is a [`Vec`] where the signature has a variadic parameter.
    type Arguments: DeserializeOwned;
    /// What it returns.
    type Output: Serialize;

    /// Its parameters and result.
    fn signature(&self) -> Signature;

    /// Its result.
    fn call(&self, arguments: Self::Arguments) -> Result<Self::Output, FunctionError>;
}

/// Why a function has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionError {
    /// What was found and what was expected.
    pub text: String,
    /// The argument it is about, counted from 0.
    pub argument: Option<usize>,
}

impl FunctionError {
    /// An error about the whole call.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), argument: None }
    }

    /// About the argument at `index`, counted from 0.
    #[must_use]
    pub fn argument(self, index: usize) -> Self {
        Self { argument: Some(index), ..self }
    }
}

/// Parameters and result of a function.
#[derive(Clone, Debug)]
pub struct Signature {
    pub(crate) parameters: Vec<(String, Parameter)>,
    pub(crate) variadic: Option<(String, Parameter)>,
    pub(crate) result: Type,
    pub(crate) summary: String,
    pub(crate) description: String,
    pub(crate) deprecated: Option<String>,
}

/// A parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub(crate) ty: Type,
    pub(crate) description: String,
    pub(crate) allow_null: bool,
    pub(crate) allow_unknown: bool,
}

impl Signature {
    /// A function without parameters.
    pub fn returns(result: Type) -> Self {
        Self {
            parameters: vec![],
            variadic: None,
            result,
            summary: String::new(),
            description: String::new(),
            deprecated: None,
        }
    }

    /// What it does, in a line.
    #[must_use]
    pub fn summary(self, text: impl Into<String>) -> Self {
        Self { summary: text.into(), ..self }
    }

    /// What it does, in Markdown.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        Self { description: text.into(), ..self }
    }

    /// It should not be used any more; `instead` says what to do.
    #[must_use]
    pub fn deprecated(self, instead: impl Into<String>) -> Self {
        Self { deprecated: Some(instead.into()), ..self }
    }

    /// With another parameter.
    #[must_use]
    pub fn parameter(mut self, name: &str, parameter: Parameter) -> Self {
        self.parameters.push((name.to_owned(), parameter));
        self
    }

    /// With any number of further arguments.
    #[must_use]
    pub fn variadic(self, name: &str, parameter: Parameter) -> Self {
        Self { variadic: Some((name.to_owned(), parameter)), ..self }
    }

    /// The parameter of the argument at `index`.
    pub(crate) fn at(&self, index: usize) -> Option<&Parameter> {
        self.parameters.get(index).or(self.variadic.as_ref()).map(|(_, parameter)| parameter)
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = vec![];
        if self.summary.is_empty() || self.description.is_empty() {
            problems.push("it lacks a summary or a description".to_owned());
        }
        let mut names = std::collections::BTreeSet::new();
        for (name, parameter) in self.parameters.iter().chain(&self.variadic) {
            if parameter.description.is_empty() {
                problems.push(format!("the parameter `{name}` has no description"));
            }
            if !names.insert(name) {
                problems.push(format!("the parameter `{name}` is there twice"));
            }
        }
        problems
    }
}

impl Parameter {
    /// A parameter.
    pub fn new(ty: Type) -> Self {
        Self { ty, description: String::new(), allow_null: false, allow_unknown: false }
    }

    /// What it is, in Markdown.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        Self { description: text.into(), ..self }
    }

    /// The argument may be null; else Terraform refuses null.
    #[must_use]
    pub fn allow_null(self) -> Self {
        Self { allow_null: true, ..self }
    }

    /// The function is called although something in the argument is not known; else the result is not known either.
    #[must_use]
    pub fn allow_unknown(self) -> Self {
        Self { allow_unknown: true, ..self }
    }
}

/// A function without its types, as the server keeps it.
pub trait DynFunction: Send + Sync {
    /// See [`Function::NAME`].
    fn name(&self) -> &'static str;
    /// See [`Function::signature`].
    fn signature(&self) -> &Signature;
    /// See [`Function::call`].
    fn call(&self, arguments: Vec<Value>) -> Result<Value, FunctionError>;
}

/// Puts a function into a provider's list.
pub fn function<F: Function>(function: F) -> Box<dyn DynFunction> {
    let signature = function.signature();
    Box::new(Erased { function, signature })
}

struct Erased<F> {
    function: F,
    signature: Signature,
}

impl<F: Function> DynFunction for Erased<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn call(&self, mut arguments: Vec<Value>) -> Result<Value, FunctionError> {
        let fixed = self.signature.parameters.len();
        if self.signature.variadic.is_some() {
            let rest = arguments.split_off(fixed.min(arguments.len()));
            arguments.push(Value::List(rest));
        }
        let arguments = from_value(&Value::List(arguments))
            .map_err(|error| argument_error(&error.path, error.message, fixed))?;
        let output = self.function.call(arguments)?;
        to_value(&output).map_err(|error| {
            FunctionError::new(format!(
                "the result of {} cannot be written: {error}. Please report it",
                F::NAME
            ))
        })
    }
}

/// An argument that does not fit the Rust type, told as one of the arguments the user wrote.
fn argument_error(path: &Path, message: String, fixed: usize) -> FunctionError {
    let (argument, rest) = match path.steps() {
        [Step::Index(index), Step::Index(more), rest @ ..] if *index == fixed => (Some(index + more), rest),
        [Step::Index(index), rest @ ..] => (Some(*index), rest),
        rest => (None, rest),
    };
    let place = Path::from_steps(rest);
    let text = if rest.is_empty() { message } else { format!("{place}: {message}") };
    FunctionError { text, argument }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Join;

    impl Function for Join {
        const NAME: &'static str = "join";
        type Arguments = (String, Vec<u8>);
        type Output = String;

        fn signature(&self) -> Signature {
            Signature::returns(Type::String)
                .parameter("separator", Parameter::new(Type::String))
                .variadic("numbers", Parameter::new(Type::Number))
        }

        fn call(&self, (separator, numbers): Self::Arguments) -> Result<String, FunctionError> {
            if separator.is_empty() {
                return Err(FunctionError::new("expected a separator").argument(0));
            }
            Ok(numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(&separator))
        }
    }

    fn call(arguments: Vec<Value>) -> Result<Value, FunctionError> {
        function(Join).call(arguments)
    }

    #[test]
    fn arguments_are_typed_and_the_last_takes_the_rest() {
        assert_eq!(call(vec!["-".into(), 1i64.into(), 2i64.into()]), Ok("1-2".into()));
        assert_eq!(call(vec!["-".into()]), Ok("".into()));
    }

    #[test]
    fn errors_count_arguments_as_the_user_does() {
        assert_eq!(call(vec!["".into()]).unwrap_err().argument, Some(0));
        let error = call(vec!["-".into(), 1i64.into(), 300i64.into()]).unwrap_err();
        assert_eq!(error.argument, Some(2), "{error:?}");
        assert!(error.text.contains("300"), "{error:?}");
    }
}
