//! A whole provider: text files.

use std::{fs, io, process::ExitCode};

use serde::{Deserialize, Serialize};
use tfplugin::{
    Applied, ApplyRequest, Attr, Attribute, ConfigureCx, Cx, Diagnostic, Diagnostics, DynResource, Path,
    Provider, Resource, Schema, State,
};

struct Files;

impl Provider for Files {
    type Config = ();
    type Data = ();
    const NAME: &'static str = "files";
    const SOURCE: &'static str = "example/files";

    fn schema(&self) -> Schema {
        Schema::new(0).description("Keeps text files.")
    }
    async fn configure(&self, _: &ConfigureCx, (): ()) -> Result<(), Diagnostics> {
        Ok(())
    }
    fn resources(&self) -> Vec<Box<dyn DynResource<()>>> {
        vec![tfplugin::resource(File)]
    }
}

struct File;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Model {
    path: Attr<String>,
    content: Attr<String>,
    size: Attr<usize>,
}

impl Model {
    fn path(&self) -> &str {
        self.path.known().map_or("", String::as_str)
    }

    fn write(mut self) -> Applied<Self> {
        let content = self.content.known().cloned().unwrap_or_default();
        fs::write(self.path(), &content).map_err(|error| self.problem(&error))?;
        self.size = Attr::Known(content.len());
        Ok(self.into())
    }

    fn problem(&self, error: &io::Error) -> Diagnostic {
        Diagnostic::error(format!("{}: {error}", self.path())).at(Path::root().attribute("path"))
    }
}

impl Resource<()> for File {
    const TYPE: &'static str = "files_file";
    type Model = Model;
    type Private = ();

    fn schema(&self) -> Schema {
        let path = Attribute::string().required().requires_replace().description("Where it is.");
        let content = Attribute::string().required().description("What is in it.");
        let size = Attribute::number().computed().description("Its size in bytes.");
        let schema = Schema::new(0).description("A text file.");
        schema.attribute("path", path).attribute("content", content).attribute("size", size)
    }
    async fn read(&self, _: &Cx<()>, state: State<Model>) -> Result<Option<State<Model>>, Diagnostics> {
        match fs::read_to_string(state.value.path()) {
            Ok(content) => {
                let size = Attr::Known(content.len());
                Ok(Some(Model { content: Attr::Known(content), size, ..state.value }.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(state.value.problem(&error).into()),
        }
    }
    async fn create(&self, _: &Cx<()>, request: ApplyRequest<Model>) -> Applied<Model> {
        request.planned.write()
    }
    async fn update(&self, _: &Cx<()>, _: State<Model>, request: ApplyRequest<Model>) -> Applied<Model> {
        request.planned.write()
    }
    async fn delete(&self, _: &Cx<()>, state: State<Model>) -> Result<(), Diagnostics> {
        fs::remove_file(state.value.path()).map_err(|error| state.value.problem(&error).into())
    }
    async fn import(&self, _: &Cx<()>, id: &str) -> Result<State<Model>, Diagnostics> {
        Ok(Model { path: Attr::Known(id.to_owned()), ..Model::default() }.into())
    }
}

fn main() -> ExitCode {
    tfplugin::serve(Files, async {})
}
