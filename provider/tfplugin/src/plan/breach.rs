//! What breaks the rules for plans and results, and how the user is told.

use crate::schema::validate::brief;
use crate::{Diagnostic, Diagnostics, Path, Schema, Step, Value};

/// The breaches found so far, and the place that is being looked at.
pub(super) struct Broken<'a> {
    pub(super) type_name: &'a str,
    pub(super) schema: &'a Schema,
    pub(super) rule: &'a str,
    steps: Vec<Step>,
    pub(super) found: Diagnostics,
}

impl<'a> Broken<'a> {
    pub(super) fn new(type_name: &'a str, schema: &'a Schema, rule: &'a str) -> Self {
        Self { type_name, schema, rule, steps: vec![], found: Diagnostics::default() }
    }

    pub(super) fn within(&mut self, step: Step, look: impl FnOnce(&mut Self)) {
        self.steps.push(step);
        look(self);
        self.steps.pop();
    }

    pub(super) fn report(&mut self, expected: &Value, found: &Value) {
        self.report_text(expected, found, "");
    }

    pub(super) fn report_text(&mut self, expected: &Value, found: &Value, more: &str) {
        let expected = format!("{}{more}", self.show(expected));
        self.report_due(&expected, found);
    }

    pub(super) fn show(&self, value: &Value) -> String {
        let hidden = self.schema.hides(&Path::from_steps(&self.steps));
        if hidden { "a sensitive value".to_owned() } else { brief(value) }
    }

    pub(super) fn report_due(&mut self, expected: &str, found: &Value) {
        let found = self.show(found);
        let Self { type_name, rule, .. } = self;
        let path = Path::from_steps(&self.steps);
        let place = if path.steps().is_empty() { "itself".to_owned() } else { format!("`{path}`") };
        self.found.push(
            Diagnostic::error("The provider contradicts itself")
                .detail(format!(
                    "{type_name} {rule} {found} for {place} where {expected} was due. This is a mistake in the \
                     provider; please report it."
                ))
                .at(path),
        );
    }
}
