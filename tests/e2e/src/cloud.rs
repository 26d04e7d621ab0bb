//! AWS as far as it can be had here: the `moto` server answers the API, and for every instance it says is running the
//! lab boots a real host, at the instance's addresses, with its key pair and what its user data say. So making,
//! waiting, deploying, stopping and ending machines are all real, but for the hypervisor.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test cannot go on without its cloud"
)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ec2::types::{
    AttributeValue, BlockDeviceMapping, EbsBlockDevice, Instance, InstanceAttributeName, InstanceStateName,
    VirtualizationType,
};
use base64::Engine as _;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use lab::{GATEWAY, Guest, Host, Lab};

use crate::{World, WorldError, repository};

/// What is installed from `PyPI`, by `cargo xtask`. Later versions of moto answer `GetBucketVersioning` with a
/// document that AWS' SDK does not take.
pub const PYTHON_PACKAGES: &[&str] = &["moto[ec2,s3]==5.1.22", "flask==3.1.3", "flask-cors==6.0.5"];

/// Where they are installed, below the repository.
pub const PYTHON: &str = "target/moto";

/// The port of the API.
const PORT: u16 = 5000;
/// How often the hypervisor looks what is to run.
const TICK: Duration = Duration::from_millis(150);

/// Regions, their instances, and the hosts they run on.
#[derive(Debug)]
pub struct Cloud {
    pub(crate) lab: Arc<Lab>,
    shared: Arc<Shared>,
    hypervisor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    machines: Mutex<BTreeMap<String, Machine>>,
    stop: AtomicBool,
}

#[derive(Debug)]
struct Machine {
    host: Host,
    on: bool,
    addresses: Vec<Ipv4Addr>,
    elastic: bool,
}

impl Cloud {
    /// Starts the API and the hypervisor for these regions.
    pub fn start(world: &World, regions: &[&str]) -> Result<Self, WorldError> {
        let server = repository().join(PYTHON).join("bin/moto_server");
        if !server.is_file() {
            return Err(WorldError::NoMoto(server));
        }
        let lab = world.lab.clone();
        lab.open_network()?;
        lab.start_service("moto", &server, &["-H", &GATEWAY.to_string(), "-p", &PORT.to_string()])?;
        let shared = Arc::new(Shared::default());
        let hypervisor = {
            let (lab, shared) = (lab.clone(), shared.clone());
            let regions: Vec<String> = regions.iter().map(|region| (*region).to_owned()).collect();
            std::thread::spawn(move || {
                in_network(&lab.clone(), async move || run(&lab, &shared, &regions).await);
            })
        };
        let cloud = Self { lab, shared, hypervisor: Some(hypervisor) };
        let start = Instant::now();
        while !cloud.ask("us-east-1", async |client| client.describe_vpcs().send().await.is_ok()) {
            if start.elapsed() > Duration::from_secs(30) {
                return Err(WorldError::NoAnswer);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(cloud)
    }

    /// Where the API is, for those on the lab's hosts.
    pub fn endpoint(&self) -> String {
        endpoint()
    }

    /// Asks EC2 something, past Terraform.
    pub fn ask<T: Send>(
        &self,
        region: &str,
        question: impl AsyncFnOnce(aws_sdk_ec2::Client) -> T + Send,
    ) -> T {
        let client = ec2(region);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| in_network(&self.lab, async move || question(client).await));
            asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Asks S3 something, past Terraform.
    pub fn ask_s3<T: Send>(
        &self,
        region: &str,
        question: impl AsyncFnOnce(aws_sdk_s3::Client) -> T + Send,
    ) -> T {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .endpoint_url(endpoint())
            .force_path_style(true)
            .credentials_provider(credentials())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        let client = aws_sdk_s3::Client::from_conf(config);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| in_network(&self.lab, async move || question(client).await));
            asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A subnet of the lab's network in a region: `10.88.NUMBER.0/24`; its id.
    pub fn subnet(&self, region: &str, number: u8) -> String {
        self.ask(region, async move |client| {
            let vpc = client.create_vpc().cidr_block("10.88.0.0/16").send().await.unwrap();
            let vpc = vpc.vpc().and_then(|vpc| vpc.vpc_id()).unwrap().to_owned();
            let block = format!("10.88.{number}.0/24");
            let subnet = client.create_subnet().vpc_id(vpc).cidr_block(block).send().await.unwrap();
            let id = subnet.subnet().and_then(|subnet| subnet.subnet_id()).unwrap().to_owned();
            let on = aws_sdk_ec2::types::AttributeBooleanValue::builder().value(true).build();
            client.modify_subnet_attribute().subnet_id(&id).map_public_ip_on_launch(on).send().await.unwrap();
            id
        })
    }

    /// An image as NixOS publishes them; its id.
    pub fn image(&self, region: &str, name: &str) -> String {
        let name = name.to_owned();
        self.ask(region, async move |client| {
            let ebs = EbsBlockDevice::builder().volume_size(8).snapshot_id("snap-00000000").build();
            let root = BlockDeviceMapping::builder().device_name("/dev/xvda").ebs(ebs).build();
            let call = client
                .register_image()
                .name(name)
                .architecture("x86_64".into())
                .root_device_name("/dev/xvda");
            let call = call.virtualization_type(VirtualizationType::Hvm.as_str()).block_device_mappings(root);
            call.send().await.unwrap().image_id().unwrap().to_owned()
        })
    }

    /// An IAM instance profile; its ARN.
    pub fn instance_profile(&self, name: &str) -> String {
        // Nothing else is asked of IAM, so there is no SDK for it here. moto finds the service by the scope of the
        // credential.
        let credential = "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/iam/aws4_request, \
                          SignedHeaders=host, Signature=test";
        let body = format!("Action=CreateInstanceProfile&Version=2010-05-08&InstanceProfileName={name}");
        let request = Request::post(endpoint())
            .header(AUTHORIZATION, credential)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let asked = async || {
            let client = Client::builder(TokioExecutor::new()).build_http();
            let answer = client.request(request).await.unwrap().into_body().collect().await.unwrap();
            String::from_utf8(answer.to_bytes().into()).unwrap()
        };
        let answer = std::thread::scope(|scope| {
            let asked = scope.spawn(|| in_network(&self.lab, asked));
            asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let arn = answer.split_once("<Arn>").and_then(|(_, rest)| rest.split_once("</Arn>"));
        arn.unwrap_or_else(|| panic!("no profile was made: {answer}")).0.to_owned()
    }

    /// Looks at the host of an instance.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn with<T>(&self, id: &str, look: impl FnOnce(&Host) -> T) -> T {
        let machines = self.shared.machines();
        look(&machines.get(id).unwrap_or_else(|| panic!("there is no host for {id}")).host)
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.hypervisor.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn machines(&self) -> MutexGuard<'_, BTreeMap<String, Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn endpoint() -> String {
    format!("http://{GATEWAY}:{PORT}")
}

fn credentials() -> Credentials {
    Credentials::new("test", "test", None, None, "test")
}

fn ec2(region: &str) -> aws_sdk_ec2::Client {
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .endpoint_url(endpoint())
        .credentials_provider(credentials())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    aws_sdk_ec2::Client::from_conf(config)
}

/// Does something on this thread, which is from now on in the lab's network.
pub(crate) fn in_network<T>(lab: &Lab, work: impl AsyncFnOnce() -> T) -> T {
    lab.join_network().expect("the lab's network is there");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs no more than this machine has").block_on(work())
}

/// The hypervisor.
async fn run(lab: &Lab, shared: &Shared, regions: &[String]) {
    let clients: Vec<_> = regions.iter().map(|region| ec2(region)).collect();
    while !shared.stop.load(Ordering::SeqCst) {
        for client in &clients {
            let Ok(found) = client.describe_instances().send().await else { continue };
            for instance in found.reservations().iter().flat_map(|reservation| reservation.instances()) {
                if let Err(error) = serve(lab, shared, client, instance).await {
                    eprintln!("hypervisor: {}: {error}", instance.instance_id().unwrap_or("?"));
                }
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Does for one instance what its state says.
async fn serve(
    lab: &Lab,
    shared: &Shared,
    client: &aws_sdk_ec2::Client,
    instance: &Instance,
) -> Result<(), Box<dyn std::error::Error>> {
    let id = instance.instance_id().unwrap_or_default().to_owned();
    let state = instance.state().and_then(|state| state.name()).cloned();
    let known = shared.machines().get(&id).map(|machine| machine.on);
    match (state, known) {
        (Some(InstanceStateName::Running), None) => {
            let guest = guest(client, instance).await?;
            let host = lab.add(&guest)?;
            shared
                .machines()
                .insert(id, Machine { host, on: true, addresses: guest.addresses, elastic: false });
        }
        (Some(InstanceStateName::Running), Some(_)) => {
            let addresses = addresses(instance);
            let same =
                shared.machines().get(&id).is_none_or(|machine| machine.on && machine.addresses == addresses);
            if same {
                return Ok(());
            }
            let elastic = client.describe_addresses().send().await?;
            let elastic = elastic.addresses().iter().any(|address| address.instance_id() == Some(&id));
            let mut machines = shared.machines();
            let Some(machine) = machines.get_mut(&id) else { return Ok(()) };
            // Another address that nobody gave it: it was stopped and started since the last look.
            if machine.on && !elastic && !machine.elastic {
                machine.host.power_cut()?;
                machine.on = false;
            }
            machine.host.set_addresses(&addresses)?;
            machine.addresses = addresses;
            machine.elastic = elastic;
            if !machine.on {
                machine.host.power_on_without_waiting()?;
                machine.on = true;
            }
        }
        (Some(InstanceStateName::Stopped), Some(true)) => {
            let mut machines = shared.machines();
            if let Some(machine) = machines.get_mut(&id) {
                machine.host.power_cut()?;
                machine.on = false;
            }
        }
        (Some(InstanceStateName::Terminated), Some(_)) => {
            if let Some(machine) = shared.machines().remove(&id) {
                machine.host.scrap()?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn addresses(instance: &Instance) -> Vec<Ipv4Addr> {
    let addresses = [instance.private_ip_address(), instance.public_ip_address()];
    addresses.into_iter().flatten().filter_map(|address| address.parse().ok()).collect()
}

/// What NixOS' images make of key pair and user data when they boot for the first time.
async fn guest(
    client: &aws_sdk_ec2::Client,
    instance: &Instance,
) -> Result<Guest, Box<dyn std::error::Error>> {
    let id = instance.instance_id().unwrap_or_default();
    let mut authorized = String::new();
    if let Some(name) = instance.key_name() {
        let found = client.describe_key_pairs().key_names(name).include_public_key(true).send().await?;
        let key = found.key_pairs().first().and_then(|pair| pair.public_key()).unwrap_or_default();
        authorized = format!("{key}\n");
    }
    let call =
        client.describe_instance_attribute().instance_id(id).attribute(InstanceAttributeName::UserData);
    let found = call.send().await?;
    let data = found.user_data().and_then(AttributeValue::value).unwrap_or_default();
    let data = base64::engine::general_purpose::STANDARD.decode(data)?;
    let data = String::from_utf8_lossy(&data).into_owned();
    let line = |prefix: &str| data.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
    let host_key = line("SSH_HOST_ED25519_KEY:").zip(line("SSH_HOST_ED25519_KEY_PUB:"));
    let host_key = host_key.map(|(private, public)| (private.replace('|', "\n"), public));
    Ok(Guest { name: id.to_owned(), addresses: addresses(instance), host_key, authorized_keys: authorized })
}
