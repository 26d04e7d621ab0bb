//! A machine as its instance is: found, looked at, pointed to.

use tfplugin::{Attr, Diagnostic, Diagnostics};
use tokio_util::sync::CancellationToken;

use super::api::Ec2;
use super::block::Ec2Block;
use super::drift::power;
use super::ipv6::addresses as ipv6_addresses;
use crate::aws::Seen;
use crate::deadline::Deadline;
use crate::machines::machine::Machine;
use crate::machines::seen::fill;
use crate::settings::completed;

impl Machine {
    /// Finds the instance where it is known only by what it was asked for with; whether there is one.
    pub(super) async fn find(
        &mut self,
        ec2: &Ec2<'_>,
        cancel: &CancellationToken,
    ) -> Result<bool, Diagnostic> {
        if let Some(token) = self.asked_with() {
            self.id = Attr::from(ec2.made_by(token, cancel).await.map_err(self.problem("look for"))?);
        }
        Ok(self.id.is_known())
    }

    /// The token it was asked for with, where no answer has come: there is an instance of it or not.
    pub(super) fn asked_with(&self) -> Option<&str> {
        let token = self.ec2.known().and_then(|block| block.client_token.known());
        token.filter(|_| !self.id.is_known()).map(String::as_str)
    }

    /// Takes over where the instance is. While it is stopped, its last addresses stay.
    pub(super) fn take_addresses(&mut self, seen: &Seen) {
        let text = |value: Option<&str>| Attr::from(value.filter(|text| !text.is_empty()).map(str::to_owned));
        let block = self.ec2.known().cloned().unwrap_or_default();
        // The instance shows an elastic address later than the address does.
        let elastic = block.elastic_ip.known().and_then(|id| seen.elastic_ips.get(id).cloned());
        if power(&seen.instance) == "running" || self.host.is_null() {
            self.public_ipv4 = elastic.map_or_else(|| text(seen.instance.public_ip_address()), Attr::Known);
            self.private_ipv4 = text(seen.instance.private_ip_address());
            self.public_ipv6 = Attr::from(ipv6_addresses(&seen.instance).into_iter().next());
        }
        let (public, private, ipv6) = (&self.public_ipv4, &self.private_ipv4, &self.public_ipv6);
        let is = |choice: &Attr<bool>| *choice == Attr::Known(true);
        let in_order = match (is(&block.use_private_address), is(&block.use_ipv6_address)) {
            (true, _) => [private, ipv6, public],
            (false, true) => [ipv6, public, private],
            (false, false) => [public, private, ipv6],
        };
        self.host = Attr::from(in_order.into_iter().find_map(Attr::known).cloned());
    }

    /// Looks at the instance as it is now, and completes the block by it.
    pub(super) async fn complete_block(
        &mut self,
        ec2: &Ec2<'_>,
        block: &mut Ec2Block,
        deadline: &Deadline,
    ) -> Result<Seen, Diagnostics> {
        let id = self.instance_id();
        let seen = ec2.described(&id, block, deadline).await.map_err(self.problem("describe"))?;
        let mut found = block.clone();
        found.take(&seen, self.label(), ec2.tag_rules());
        // What was asked for is what the plan promised, also where EC2 has not come round to showing it.
        *block = completed(block, &found);
        self.ec2 = Attr::Known(block.clone());
        Ok(seen)
    }

    /// Looks at the instance as it is now, and completes block and addresses by it. Its last addresses have to be
    /// there by now: an elastic one takes the place of the one that the subnet gave.
    pub(super) async fn complete_from_instance(
        &mut self,
        ec2: &Ec2<'_>,
        block: &mut Ec2Block,
        deadline: &Deadline,
    ) -> Result<(), Diagnostics> {
        let seen = self.complete_block(ec2, block, deadline).await?;
        let mut found = Self { host: Attr::Null, ..self.clone() };
        found.take_addresses(&seen);
        fill(&mut self.public_ipv4, || found.public_ipv4.clone());
        fill(&mut self.private_ipv4, || found.private_ipv4.clone());
        fill(&mut self.public_ipv6, || found.public_ipv6.clone());
        fill(&mut self.host, || found.host.clone());
        self.update_target();
        Ok(())
    }
}
