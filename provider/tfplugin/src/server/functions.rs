//! The call of a function.

#![expect(
    clippy::unused_async,
    reason = "a call is a future even if it never waits: it runs in its own task"
)]

use std::sync::Arc;

use super::call::Call;
use super::rpc::{Rpc, Shared};
use super::wire::{decode_type, encode_type, small_enough};
use crate::plan::normalized_type;
use crate::protocol::proto;
use crate::{Diagnostics, FunctionError, Provider};

type Called = Result<proto::DynamicValue, FunctionError>;

impl<P: Provider> Rpc<P> {
    /// Calls a function. Its errors have a form of their own.
    pub(super) async fn call(
        &self,
        request: proto::call_function::Request,
    ) -> proto::call_function::Response {
        let call = Call::new("CallFunction", &request.name);
        let called = self.run(&call, self.shared.clone().call(request)).await.map(|called| match called {
            Ok(result) => proto::call_function::Response { result: Some(result), error: None },
            Err(error) => function_error(error),
        });
        called.and_then(|answer| small_enough(&call, answer)).unwrap_or_else(|errors| {
            let texts = errors.into_iter().map(|error| format!("{}: {}", error.summary, error.detail));
            function_error(FunctionError::new(texts.collect::<Vec<_>>().join("\n")))
        })
    }
}

impl<P: Provider> Shared<P> {
    async fn call(self: Arc<Self>, request: proto::call_function::Request) -> Result<Called, Diagnostics> {
        let function = self.registry().function(&request.name)?;
        let signature = function.signature();
        let mut arguments = vec![];
        for (index, argument) in request.arguments.iter().enumerate() {
            let Some(parameter) = signature.at(index) else {
                return Ok(Err(FunctionError::new("this is an argument too many").argument(index)));
            };
            arguments.push(decode_type(&parameter.ty, Some(argument))?);
        }
        if arguments.len() < signature.parameters.len() {
            let (found, expected) = (arguments.len(), signature.parameters.len());
            return Ok(Err(FunctionError::new(format!("found {found} arguments, expected {expected}"))));
        }
        Ok(match function.call(arguments) {
            Ok(result) => Ok(encode_type(&signature.result, &normalized_type(&signature.result, result))?),
            Err(error) => Err(error),
        })
    }
}

fn function_error(error: FunctionError) -> proto::call_function::Response {
    let argument = error.argument.map(|index| i64::try_from(index).unwrap_or(i64::MAX));
    let error = proto::FunctionError { text: error.text, function_argument: argument };
    proto::call_function::Response { result: None, error: Some(error) }
}
