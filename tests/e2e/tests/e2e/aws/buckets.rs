//! S3 buckets: a whole life, and buckets that were somebody's before.

use std::collections::BTreeSet;

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketLocationConstraint, CreateBucketConfiguration, ExpirationStatus,
    LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
};
use e2e::{Cloud, Storm, Weather};

use super::{head, once};
use crate::support::{apply, apply_until, fails_saying, no_changes, plan, says, set_up, succeeds, world};

/// The names of all buckets.
pub(super) fn buckets(cloud: &Cloud) -> BTreeSet<String> {
    cloud.ask_s3("eu-west-1", async |client| {
        let found = client.list_buckets().send().await.unwrap();
        found.buckets().iter().filter_map(|bucket| bucket.name().map(str::to_owned)).collect()
    })
}

const BUCKET: &str = r#"
resource "nixos_s3_bucket" "assets" {
  bucket        = "assets-1"
  force_destroy = true
  versioning    = "Enabled"
  policy = jsonencode({ Version = "2012-10-17", Statement = [
    { Effect = "Allow", Principal = "*", Action = ["s3:GetObject"], Resource = ["arn:aws:s3:::assets-1/*"] }] })
  public_access_block    = { block_public_policy = false, restrict_public_buckets = false }
  object_ownership       = "BucketOwnerPreferred"
  server_side_encryption = { sse_algorithm = "aws:kms" }
  website                = { index_document = "index.html", error_document = "error.html" }
  cors_rules             = [{ allowed_methods = ["GET"], allowed_origins = ["*"], max_age_seconds = 60 }]
  lifecycle_rules = [
    { id = "old", expiration = { days = 30 }, filter = { prefix = "log/" } },
    { id = "cold", enabled = false, transitions = [{ days = 30, storage_class = "GLACIER" }], noncurrent_version_expiration = { noncurrent_days = 10 } },
  ]
  tags = { class = "web" }
}
"#;

#[test]
fn a_bucket_lives_its_whole_life() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    set_up(&world, &format!("{}{BUCKET}", head(&cloud)), "");
    succeeds(&apply(&world));
    no_changes(&world);

    // What somebody changes shows, and is put back; and nothing else is written.
    cloud.ask_s3("eu-west-1", async |client| {
        client.delete_bucket_policy().bucket("assets-1").send().await.unwrap();
        client.delete_bucket_website().bucket("assets-1").send().await.unwrap();
    });
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["0 to add, 1 to change, 0 to destroy", "+ policy", "+ website"]);
    succeeds(&apply(&world));
    no_changes(&world);

    // Imported into another state, it needs no change.
    succeeds(&world.terraform(&["state", "rm", "nixos_s3_bucket.assets"]));
    fails_saying(&apply(&world), &["There is a bucket \"assets-1\" already", "adopt_existing"]);
    succeeds(&world.terraform(&["import", "nixos_s3_bucket.assets", "assets-1"]));
    // Nothing on S3 tells what destroying is to do.
    says(&plan(&world), &["0 to add, 1 to change, 0 to destroy", "force_destroy"]);
    let main = format!("{}{}", head(&cloud), BUCKET.replace("force_destroy = true", ""));
    world.write("main.tf", &main).unwrap();
    no_changes(&world);

    // A part that is removed goes back to what a new bucket has.
    let bare = "resource \"nixos_s3_bucket\" \"assets\" {\n  bucket = \"assets-1\"\n}\n";
    world.write("main.tf", &format!("{}{bare}", head(&cloud))).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
    let (policy, rules) = cloud.ask_s3("eu-west-1", async |client| {
        let policy = client.get_bucket_policy().bucket("assets-1").send().await.is_ok();
        (policy, client.get_bucket_lifecycle_configuration().bucket("assets-1").send().await.is_ok())
    });
    assert!(!policy && !rules, "policy or lifecycle rules are still there");

    // What is in it is not deleted by accident, and all of it when asked for.
    cloud.ask_s3("eu-west-1", async |client| {
        let put = async |body: &'static str| {
            let body = aws_sdk_s3::primitives::ByteStream::from_static(body.as_bytes());
            client.put_object().bucket("assets-1").key("page").body(body).send().await.unwrap();
        };
        put("one").await;
        client.delete_object().bucket("assets-1").key("page").send().await.unwrap();
        put("two").await;
        client.create_multipart_upload().bucket("assets-1").key("big").send().await.unwrap();
    });
    fails_saying(
        &world.terraform(&["destroy", "-auto-approve"]),
        &["BucketNotEmpty", "force_destroy = true"],
    );
    let forced = bare.replace("}\n", "  force_destroy = true\n}\n");
    world.write("main.tf", &format!("{}{forced}", head(&cloud))).unwrap();
    succeeds(&apply(&world));
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    assert_eq!(buckets(&cloud), BTreeSet::new());
}

#[test]
fn a_bucket_that_was_adopted_half_way_is_not_deleted() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let weather = Weather::over(&cloud, 1, 0);
    let ours = BTreeSet::from(["heirloom".to_owned()]);
    // Somebody's bucket, empty, so that nothing but the provider itself keeps it from being deleted.
    cloud.ask_s3("us-east-1", async |client| {
        let call = client.create_bucket().bucket("heirloom");
        call.send().await.unwrap();
    });
    let main = once(
        &weather,
        "resource \"nixos_s3_bucket\" \"old\" {\n  bucket = \"heirloom\"\n  region = \"us-east-1\"\n  \
         adopt_existing = true\n  force_destroy = true\n  object_ownership = \"BucketOwnerPreferred\"\n  \
         versioning = \"Enabled\"\n}\n",
    );
    set_up(&world, &main, "");
    weather.strike("S3 PUT versioning", Storm::FailedBefore);
    fails_saying(&apply(&world), &["AWS did not write `versioning` of bucket \"heirloom\""]);
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["nixos_s3_bucket.old is tainted, so must be replaced"]);

    // Nor is it when that goes wrong once more.
    fails_saying(&apply(&world), &["Bucket \"heirloom\" stays", "AWS did not write `versioning`"]);
    assert_eq!(buckets(&cloud), ours);

    weather.calm();
    weather.take_counts();
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["Bucket \"heirloom\" stays"]);
    let (asked, _) = weather.take_counts();
    assert!(!asked.keys().any(|action| action.starts_with("S3 DELETE")), "{asked:?}");
    assert_eq!(buckets(&cloud), ours);
    no_changes(&world);
    // What is adopted at last is as if it had been made here, with what its configuration says.
    let state = world.resource("nixos_s3_bucket.old");
    assert_eq!((&state["persist_on_destroy"], &state["versioning"]), (&false.into(), &"Enabled".into()));
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    assert_eq!(buckets(&cloud), BTreeSet::new());
}

#[test]
fn a_bucket_that_was_adopted_half_way_outlives_its_resource() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let weather = Weather::over(&cloud, 1, 0);
    cloud.ask_s3("us-east-1", async |client| {
        client.create_bucket().bucket("heirloom").send().await.unwrap();
    });
    let main = once(
        &weather,
        "resource \"nixos_s3_bucket\" \"old\" {\n  bucket = \"heirloom\"\n  region = \"us-east-1\"\n  \
         adopt_existing = true\n  force_destroy = true\n  versioning = \"Enabled\"\n}\n",
    );
    set_up(&world, &main, "");
    weather.strike("S3 PUT versioning", Storm::AnswerLost);
    fails_saying(&apply(&world), &["AWS did not write `versioning` of bucket \"heirloom\""]);
    weather.calm();
    let run = world.terraform(&["destroy", "-auto-approve"]);
    succeeds(&run);
    says(&run, &["Bucket \"heirloom\" stays"]);
    assert_eq!(buckets(&cloud), BTreeSet::from(["heirloom".to_owned()]));
}

/// Rules that old tools have written say a prefix, and no filter.
#[test]
fn old_lifecycle_rules_keep_their_prefix() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    cloud.ask_s3("eu-west-1", async |client| {
        let place = CreateBucketConfiguration::builder().location_constraint("eu-west-1".into()).build();
        client.create_bucket().bucket("old").create_bucket_configuration(place).send().await.unwrap();
        let after = LifecycleExpiration::builder().days(1).build();
        #[expect(deprecated, reason = "this is how they are")]
        let rule = LifecycleRule::builder()
            .id("logs")
            .prefix("logs/")
            .status(ExpirationStatus::Enabled)
            .expiration(after);
        let rules = BucketLifecycleConfiguration::builder().rules(rule.build().unwrap()).build().unwrap();
        let put = client.put_bucket_lifecycle_configuration().bucket("old").lifecycle_configuration(rules);
        put.send().await.unwrap();
    });
    let bucket = |rules: &str| {
        format!(
            "{}resource \"nixos_s3_bucket\" \"old\" {{\n  bucket = \"old\"\n  lifecycle_rules = \
             [{rules}]\n}}\n",
            head(&cloud)
        )
    };
    let logs = "{ id = \"logs\", filter = { prefix = \"logs/\" }, expiration = { days = 1 } }";
    set_up(&world, &bucket(logs), "");
    succeeds(&world.terraform(&["import", "nixos_s3_bucket.old", "old"]));
    let run = plan(&world);
    says(&run, &["0 to add, 1 to change, 0 to destroy", "tags_all"]);
    assert!(!run.text.contains("lifecycle_rules"), "{}", run.text);
    // One that means all objects is not what there is.
    world.write("main.tf", &bucket("{ id = \"logs\", expiration = { days = 1 } }")).unwrap();
    says(&plan(&world), &["0 to add, 1 to change, 0 to destroy", "logs/"]);

    let other =
        "{ id = \"other\", filter = { prefix = \"tmp/\" }, transitions = [], expiration = { days = 7 } }";
    world.write("main.tf", &bucket(&format!("{logs}, {other}"))).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
    let prefixes = cloud.ask_s3("eu-west-1", async |client| {
        let found = client.get_bucket_lifecycle_configuration().bucket("old").send().await.unwrap();
        let prefix =
            |rule: &LifecycleRule| rule.filter().and_then(LifecycleRuleFilter::prefix).map(str::to_owned);
        found.rules().iter().map(prefix).collect::<Vec<_>>()
    });
    assert_eq!(prefixes, [Some("logs/".to_owned()), Some("tmp/".to_owned())]);
}

/// A refusal of S3.
fn refused(status: u16, code: &'static str, message: &'static str) -> Storm {
    Storm::Refused { status, code, message }
}

#[test]
fn a_name_that_is_taken_is_said_to_be() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let weather = Weather::over(&cloud, 1, 0);
    let main = |more: &str| {
        once(&weather, &format!("resource \"nixos_s3_bucket\" \"b\" {{\n  bucket = \"assets\"\n{more}}}\n"))
    };
    set_up(&world, &main(""), "");
    // What S3 says to those who ask about the bucket of another account.
    weather.strike("S3 HEAD ", refused(403, "AccessDenied", "Access Denied"));
    fails_saying(
        &apply(&world),
        &["The name \"assets\" is taken", "belongs to another account", "bucket_prefix"],
    );
    weather.strike("S3 HEAD ", Storm::Elsewhere { region: "us-west-2" });
    for more in ["", "  adopt_existing = true\n"] {
        world.write("main.tf", &main(more)).unwrap();
        fails_saying(&apply(&world), &["Bucket \"assets\" is in another region", "region = \"us-west-2\""]);
    }
    assert_eq!(world.terraform(&["state", "list"]).text, "");
    assert_eq!(buckets(&cloud), BTreeSet::new());
    // An import finds the region although the default region's part of S3 does not have the bucket.
    let location = BucketLocationConstraint::from("us-west-2");
    cloud.ask_s3("us-west-2", async |client| {
        let place = CreateBucketConfiguration::builder().location_constraint(location).build();
        client.create_bucket().bucket("assets").create_bucket_configuration(place).send().await.unwrap();
    });
    succeeds(&world.terraform(&["import", "nixos_s3_bucket.b", "assets"]));
    assert_eq!(world.resource("nixos_s3_bucket.b")["region"], "us-west-2");
}

#[test]
fn what_s3_does_not_know_yet_is_waited_for() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let weather = Weather::over(&cloud, 1, 0);
    let policy = "policy = jsonencode({ Version = \"2012-10-17\", Statement = [{ Effect = \"Allow\", \
                  Principal = { AWS = \"arn:aws:iam::123456789012:role/new\" }, Action = \
                  [\"s3:GetObject\"], Resource = [\"arn:aws:s3:::assets/*\"] }] })";
    set_up(
        &world,
        &once(
            &weather,
            &format!("resource \"nixos_s3_bucket\" \"b\" {{\n  bucket = \"assets\"\n  {policy}\n}}\n"),
        ),
        "",
    );
    // A bucket of this name was just deleted; then a role that was just made.
    for (action, storm) in [
        ("S3 PUT ", refused(409, "OperationAborted", "A conflicting conditional operation is in progress")),
        ("S3 PUT policy", refused(400, "MalformedPolicy", "Invalid principal in policy")),
    ] {
        weather.strike(action, storm);
        let child = apply_until(&world, || weather.asked(action) > 2);
        weather.calm();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{action}: {}", String::from_utf8_lossy(&output.stdout));
        no_changes(&world);
        weather.take_counts();
        succeeds(&world.terraform(&["destroy", "-auto-approve"]));
        weather.take_counts();
    }
}

#[test]
fn what_is_not_managed_outlives_a_change() {
    use aws_sdk_s3::types::{Condition, IndexDocument, Redirect, RoutingRule, WebsiteConfiguration};
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let main = |document: &str| {
        format!(
            "{}resource \"nixos_s3_bucket\" \"b\" {{\n  bucket = \"site\"\n  website = {{ index_document = \
             \"{document}\" }}\n}}\n",
            head(&cloud)
        )
    };
    set_up(&world, &main("index.html"), "");
    succeeds(&apply(&world));
    cloud.ask_s3("eu-west-1", async |client| {
        let index = IndexDocument::builder().suffix("index.html").build().unwrap();
        let condition = Condition::builder().key_prefix_equals("old/").build();
        let redirect = Redirect::builder().replace_key_prefix_with("new/").build();
        let rule = RoutingRule::builder().condition(condition).redirect(redirect).build();
        let website = WebsiteConfiguration::builder().index_document(index).routing_rules(rule).build();
        client.put_bucket_website().bucket("site").website_configuration(website).send().await.unwrap();
    });
    no_changes(&world);
    world.write("main.tf", &main("start.html")).unwrap();
    succeeds(&apply(&world));
    let found = cloud
        .ask_s3("eu-west-1", async |client| client.get_bucket_website().bucket("site").send().await.unwrap());
    assert_eq!(found.index_document().map(IndexDocument::suffix), Some("start.html"));
    let rules: Vec<_> = found.routing_rules().iter().filter_map(RoutingRule::redirect).collect();
    assert_eq!(rules[0].replace_key_prefix_with(), Some("new/"), "the rule of somebody else is still there");
}
