//! The harness itself: its connection to a provider, what it can do, and how the provider is configured and ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::transport::Channel;

use super::connect::{self, ConnectError};
use super::offers::{Offer, Schemas};
use super::wire::{answer, encode, heard};
use crate::protocol::MAX_MESSAGE;
use crate::protocol::plugin::{self, grpc_controller_client::GrpcControllerClient};
use crate::protocol::proto::{self, provider_client::ProviderClient};
use crate::terraform;
use crate::{Client, Diagnostics, Provider, Schema, Value};

/// Terraform's part.
#[derive(Debug)]
pub struct Harness {
    pub(super) client: ProviderClient<Channel>,
    pub(super) controller: GrpcControllerClient<Channel>,
    pub(super) schemas: Schemas,
    pub(super) says: Client,
    /// The program, where the provider is one; it ends with us.
    pub(super) process: Mutex<Option<tokio::process::Child>>,
}

impl Harness {
    /// A provider within this process.
    pub async fn of<P: Provider>(provider: P) -> Result<Self, ConnectError> {
        Self::over(connect::in_process(provider).await?).await
    }

    /// A program, which is started as Terraform starts it.
    pub async fn start(program: &Path) -> Result<Self, ConnectError> {
        Self::over(connect::process(program).await?).await
    }

    async fn over(connected: connect::Connected) -> Result<Self, ConnectError> {
        let controller = GrpcControllerClient::new(connected.channel.clone());
        // Terraform sends whatever it has; that it is too much is for the provider to say.
        let client = ProviderClient::new(connected.channel).max_decoding_message_size(MAX_MESSAGE);
        let schemas = Schemas::of(client.clone()).await;
        let says = Client {
            deferral_allowed: false,
            write_only_attributes_allowed: true,
            stores_planned_private: false,
        };
        Ok(Self { client, controller, schemas, says, process: Mutex::new(connected.process) })
    }

    /// As another version of Terraform, which can do other things: `change` starts from what Terraform 1.11 can do.
    #[must_use]
    pub fn saying(mut self, change: impl FnOnce(&mut Client)) -> Self {
        change(&mut self.says);
        self
    }

    /// Validates the provider block and configures.
    pub async fn configure(&self, config: &Value) -> Result<Diagnostics, Diagnostics> {
        let schema = &self.schemas.provider;
        let mut warnings = self.validate_as(Offer::Provider, config).await?;
        let config = encode(schema, &terraform::conform(schema, config)?);
        let request = proto::configure_provider::Request {
            terraform_version: "1.11.4".to_owned(),
            config: Some(config),
            client_capabilities: Some(self.capabilities()),
        };
        warnings.extend(heard(answer(self.client.clone().configure_provider(request).await).diagnostics)?);
        Ok(warnings)
    }

    /// What Terraform calls at the first Ctrl-C.
    pub async fn stop(&self) {
        let response = answer(self.client.clone().stop_provider(proto::stop_provider::Request {}).await);
        assert!(response.error.is_empty(), "StopProvider said {}", response.error);
    }

    /// Ends the program as Terraform does: tells it to, and kills it if it is still there two seconds later. Gives how long it
    /// took; `None` where it had to be killed.
    pub async fn end(&self) -> Option<Duration> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut process = process.expect("what ends is a program, and ends once");
        let told = Instant::now();
        answer(self.controller.clone().shutdown(plugin::Empty {}).await);
        let ended = tokio::time::timeout(Duration::from_secs(2), process.wait()).await;
        ended.is_ok().then(|| told.elapsed())
    }

    /// The process of the provider, where it is a program.
    pub fn process_id(&self) -> Option<u32> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.as_ref().and_then(tokio::process::Child::id)
    }

    /// Whether the provider puts something off, which it may only where that is allowed.
    pub(super) fn is_put_off(&self, deferred: Option<proto::Deferred>) -> bool {
        assert!(deferred.is_none() || self.says.deferral_allowed, "nothing may be put off here");
        deferred.is_some()
    }

    pub(super) fn capabilities(&self) -> proto::ClientCapabilities {
        proto::ClientCapabilities {
            deferral_allowed: self.says.deferral_allowed,
            write_only_attributes_allowed: self.says.write_only_attributes_allowed,
            store_planned_private: self.says.stores_planned_private,
            computed_blocks_allowed: false,
        }
    }

    /// Every name the provider has said it has, by kind; for tests of completeness.
    pub fn offers(&self) -> BTreeMap<&'static str, Vec<String>> {
        let names = |map: &BTreeMap<String, Schema>| map.keys().cloned().collect();
        BTreeMap::from([
            ("resources", names(&self.schemas.resources)),
            ("data_sources", names(&self.schemas.data_sources)),
            ("ephemeral_resources", names(&self.schemas.ephemeral_resources)),
            ("list_resources", names(&self.schemas.list_resources)),
            ("actions", names(&self.schemas.actions)),
            ("functions", self.schemas.functions.keys().cloned().collect()),
        ])
    }
}
