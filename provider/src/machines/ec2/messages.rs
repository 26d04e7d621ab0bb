//! What goes wrong with a machine on EC2, in the words of its user.

use tfplugin::{Diagnostic, Diagnostics, Path};

use super::api::{Ec2, WaitError};
use crate::aws::AwsError;
use crate::machines::machine::Machine;
use crate::machines::visit::VisitError;

/// There is no such image.
pub(super) fn no_image(ami: &str, region: &str) -> Diagnostic {
    Diagnostic::error(format!("There is no image {ami}"))
        .detail(format!(
            "Region {region} has none that this account can see. Images have another id in every region: \
             `data.nixos_ami` looks up the right one."
        ))
        .at(Path::root().attribute("ec2").attribute("ami"))
}

impl Machine {
    /// The id of its instance; empty while there is none.
    pub(super) fn instance_id(&self) -> String {
        self.id.known().cloned().unwrap_or_default()
    }

    /// AWS refused to do something with the machine.
    pub(super) fn problem(&self, verb: &str) -> impl Fn(AwsError) -> Diagnostic + use<> {
        let summary = format!("AWS did not {verb} machine \"{}\"", self.label());
        move |error| error.diagnostic(&summary, Path::root().attribute("ec2"))
    }

    /// AWS did not do something with the machine in time.
    pub(super) fn waited(&self, verb: &str, error: &WaitError) -> Diagnostic {
        match error {
            WaitError::Aws(error) => self.problem(verb)(error.clone()),
            error => Diagnostic::error(format!("AWS did not {verb} machine \"{}\"", self.label()))
                .detail(format!("Instance {}: {error}.", self.instance_id()))
                .at(self.block_path()),
        }
    }

    /// The instance runs, but no login works.
    pub(super) async fn no_login(&self, ec2: &Ec2<'_>, error: &VisitError) -> Diagnostics {
        let id = self.instance_id();
        let diagnostic = error.diagnostic(self).appended(&format!("Instance {id} runs; it is in the state."));
        match ec2.console(&id).await {
            Some(console) => diagnostic.appended(&format!("The end of its console:\n{console}")).into(),
            None => diagnostic.into(),
        }
    }
}
