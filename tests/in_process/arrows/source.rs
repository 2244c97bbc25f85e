//! Which paths each module names, resolved through imports, renames, globs and re-exports.
//!
//! Resolution errs towards finding: a name imported in one function counts for its whole module, and
//! the tokens of macros are read as if they were code.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A path as written, with what is needed to resolve it.
#[derive(Clone, Debug)]
struct Mention {
    segments: Vec<String>,
    line: usize,
    /// `use path::*`.
    glob: bool,
    /// Compiled for tests only.
    test: bool,
}

/// One module: a file, or an inline `mod` of one.
#[derive(Debug, Default)]
struct Module {
    file: String,
    test: bool,
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    items: BTreeSet<String>,
    mentions: Vec<Mention>,
    unsafe_lines: Vec<usize>,
}

/// A path that code names, resolved.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// The module that names it, from its crate: `stratafs::protocol::init`.
    pub(super) module: String,
    /// Where: `file:line`.
    pub(super) place: String,
    /// What: `std::fs::File`.
    pub(super) path: String,
    /// Whether everything in `path` is imported.
    pub(super) glob: bool,
    /// Whether only tests are compiled with it.
    pub(super) test: bool,
}

/// The parsed sources of a workspace.
#[derive(Debug, Default)]
pub(super) struct Sources {
    modules: BTreeMap<String, Module>,
    /// Roots of crates that do not forbid unsafe code.
    pub(super) permissive_roots: Vec<(String, String)>,
    test_modules: Vec<String>,
}

impl Sources {
    /// Parses files given as (path from the top of the tree, text).
    pub(super) fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut sources = Self::default();
        for (path, text) in files {
            let module = module_path(path);
            let test = module.starts_with("test:");
            let file =
                syn::parse_file(text).unwrap_or_else(|e| panic!("{path} does not parse: {e}"));
            // Tests may have no unsafe code either, but their helpers are no roots of crates.
            if !test && !module.contains("::") && !forbids_unsafe(&file.attrs) {
                sources.permissive_roots.push((module.clone(), path.to_owned()));
            }
            let tokens: TokenStream = text.parse().expect("what parses has tokens");
            let mut lines = Vec::new();
            lines_of_unsafe(tokens, &mut lines);
            let mut reader = Reader { sources: &mut sources, file: path, module, test };
            reader.module().unsafe_lines.extend(lines);
            reader.visit_file(&file);
        }
        sources
    }

    /// Every path named anywhere, resolved.
    pub(super) fn named(&self) -> Vec<Named> {
        let mut all = Vec::new();
        for (name, module) in &self.modules {
            for mention in &module.mentions {
                all.push(Named {
                    module: name.clone(),
                    place: format!("{}:{}", module.file, mention.line),
                    path: self.resolve(name, &mention.segments, 0).join("::"),
                    glob: mention.glob,
                    test: mention.test || module.test || self.is_test_module(name),
                });
            }
        }
        all
    }

    /// Every `unsafe`: (module, place).
    pub(super) fn unsafe_places(&self) -> Vec<(String, String)> {
        let places = self.modules.iter().flat_map(|(name, module)| {
            module
                .unsafe_lines
                .iter()
                .map(move |line| (name.clone(), format!("{}:{line}", module.file)))
        });
        places.collect()
    }

    fn is_test_module(&self, name: &str) -> bool {
        self.test_modules.iter().any(|test| is_within(name, test))
    }

    /// The path from its crate that `segments` mean in `module`.
    fn resolve(&self, module: &str, segments: &[String], depth: usize) -> Vec<String> {
        // Imports may form a circle, which the compiler refuses and we only leave.
        if depth > 16 {
            return segments.to_vec();
        }
        let Some((first, rest)) = segments.split_first() else { return Vec::new() };
        let joined = |head: Vec<String>| [head, rest.to_vec()].concat();
        let split = |path: &str| path.split("::").map(str::to_owned).collect::<Vec<_>>();
        let absolute = match first.as_str() {
            // A leading `::` names an external crate.
            "" => return rest.to_vec(),
            "crate" => joined(split(module)[..1].to_vec()),
            "self" => joined(split(module)),
            "super" => {
                let mut parent = split(module);
                parent.pop();
                let parent = parent.join("::");
                if rest.first().is_some_and(|next| next == "super") {
                    return self.resolve(&parent, rest, depth + 1);
                }
                joined(split(&parent))
            }
            _ => match self.target_of(module, first, depth) {
                Some(target) => joined(target),
                None => segments.to_vec(),
            },
        };
        self.through_reexports(absolute, depth)
    }

    /// What a name stands for in a module: an item, an import, or a name that a glob brings.
    fn target_of(&self, module: &str, name: &str, depth: usize) -> Option<Vec<String>> {
        let found = self.modules.get(module)?;
        if let Some(import) = found.imports.get(name) {
            // `use name;` and `use name::{self}` mean the external crate.
            if import.first().is_some_and(|first| first == name) && !found.items.contains(name) {
                return Some(import.clone());
            }
            return Some(self.resolve(module, import, depth + 1));
        }
        if found.items.contains(name) {
            return Some(module.split("::").chain([name]).map(str::to_owned).collect());
        }
        found.globs.iter().find_map(|glob| {
            let target = self.resolve(module, glob, depth + 1).join("::");
            if target == module || depth > 8 {
                return None;
            }
            self.target_of(&target, name, depth + 1)
        })
    }

    /// Follows `pub use` in the modules on the way.
    fn through_reexports(&self, path: Vec<String>, depth: usize) -> Vec<String> {
        for at in 1..path.len() {
            let module = path[..at].join("::");
            let Some(target) = self.target_of(&module, &path[at], depth + 1) else { continue };
            if target != path[..=at] {
                let followed = [target, path[at + 1..].to_vec()].concat();
                return if depth > 16 {
                    followed
                } else {
                    self.through_reexports(followed, depth + 1)
                };
            }
        }
        path
    }
}

/// Whether `path` is `ancestor` or lies in it.
pub(super) fn is_within(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The module that a file holds, from its crate. Crates that are tests begin with `test:`.
fn module_path(file: &str) -> String {
    let parts: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    let (package, inside) = match parts.as_slice() {
        ["backends", name, rest @ ..] => (format!("stratafs_{name}"), rest),
        ["xtask", rest @ ..] => ("xtask".to_owned(), rest),
        ["fuzz", rest @ ..] => ("test:fuzz".to_owned(), rest),
        rest => ("stratafs".to_owned(), rest),
    };
    let (root, modules) = match inside {
        ["src", "main"] if package == "stratafs" => ("stratafs_bin".to_owned(), &[][..]),
        ["src", modules @ ..] => (package, modules),
        // tests/, benches/, examples/, fuzz_targets/: each file or directory is a crate.
        [kind, name, modules @ ..] => {
            (format!("test:{}_{kind}_{name}", package.trim_start_matches("test:")), modules)
        }
        other => (format!("test:{package}_{}", other.join("_")), &[][..]),
    };
    let named = modules.iter().filter(|name| !matches!(**name, "lib" | "main" | "mod"));
    std::iter::once(root).chain(named.map(|name| (*name).to_owned())).collect::<Vec<_>>().join("::")
}

fn forbids_unsafe(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("forbid")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|lint| lint == "unsafe_code")
    })
}

/// `#[cfg(test)]`, alone or in an `all`.
fn is_cfg_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let condition = list.tokens.to_string();
        list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all (test"))
    })
}

/// The word wherever it stands, so also in macros; comments are no tokens, and those of docs are text.
fn lines_of_unsafe(tokens: TokenStream, lines: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "unsafe" => lines.push(ident.span().start().line),
            TokenTree::Group(group) => lines_of_unsafe(group.stream(), lines),
            _ => {}
        }
    }
}

struct Reader<'a> {
    sources: &'a mut Sources,
    file: &'a str,
    module: String,
    test: bool,
}

impl Reader<'_> {
    fn module(&mut self) -> &mut Module {
        let (file, test) = (self.file, self.test);
        let module = self.sources.modules.entry(self.module.clone()).or_default();
        module.file = file.to_owned();
        module.test |= test;
        module
    }

    fn mention(&mut self, segments: Vec<String>, line: usize, glob: bool) {
        let test = self.test;
        self.module().mentions.push(Mention { segments, line, glob, test });
    }

    fn item(&mut self, name: &syn::Ident) {
        let name = name.to_string();
        self.module().items.insert(name);
    }

    fn as_test(&mut self, attributes: &[syn::Attribute], work: impl FnOnce(&mut Self)) {
        let outer = self.test;
        self.test |= is_cfg_test(attributes);
        work(self);
        self.test = outer;
    }

    fn use_tree(&mut self, tree: &syn::UseTree, mut prefix: Vec<String>) {
        let line = tree.span().start().line;
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.use_tree(&path.tree, prefix);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(tree, prefix.clone());
                }
            }
            syn::UseTree::Glob(_) => {
                self.module().globs.push(prefix.clone());
                self.mention(prefix, line, true);
            }
            syn::UseTree::Name(name) => self.import(prefix, &name.ident, None, line),
            syn::UseTree::Rename(rename) => {
                self.import(prefix, &rename.ident, Some(&rename.rename), line);
            }
        }
    }

    fn import(
        &mut self,
        mut path: Vec<String>,
        name: &syn::Ident,
        alias: Option<&syn::Ident>,
        line: usize,
    ) {
        if name != "self" {
            path.push(name.to_string());
        }
        let local = alias.map_or_else(|| path.last().cloned(), |alias| Some(alias.to_string()));
        if let Some(local) = local {
            self.module().imports.insert(local, path.clone());
        }
        self.mention(path, line, false);
    }

    /// Reads `a::b::c` out of tokens that are not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        let mut line = 0;
        for token in tokens {
            match &token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) => {
                    if colons != 2 || path.is_empty() {
                        self.end_of_path(&mut path, line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                }
                TokenTree::Group(group) => {
                    self.end_of_path(&mut path, line);
                    self.tokens(group.stream());
                }
                _ => self.end_of_path(&mut path, line),
            }
            colons = 0;
        }
        self.end_of_path(&mut path, line);
    }

    fn end_of_path(&mut self, path: &mut Vec<String>, line: usize) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.mention(path, line, false);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let leading = path.leading_colon.map(|_| String::new());
        let names = path.segments.iter().map(|segment| segment.ident.to_string());
        let line = path.span().start().line;
        self.mention(leading.into_iter().chain(names).collect(), line, false);
        visit::visit_path(self, path);
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {
        // `pub(crate)` says who may name the item, and names nothing; `pub(in path)` must be our own.
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let leading = item.leading_colon.map(|_| String::new());
        self.as_test(&item.attrs, |reader| {
            reader.use_tree(&item.tree, leading.into_iter().collect());
        });
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        let alias = item.rename.as_ref().map(|(_, alias)| alias);
        let line = item.span().start().line;
        self.import(vec![String::new()], &item.ident, alias, line);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.item(&item.ident);
        let inner = format!("{}::{}", self.module, item.ident);
        if is_cfg_test(&item.attrs) {
            self.sources.test_modules.push(inner.clone());
        }
        if item.content.is_some() {
            let outer = std::mem::replace(&mut self.module, inner);
            self.as_test(&item.attrs, |reader| {
                reader.module();
                visit::visit_item_mod(reader, item);
            });
            self.module = outer;
        }
    }

    fn visit_item(&mut self, item: &'ast syn::Item) {
        match item {
            syn::Item::Struct(item) => self.item(&item.ident),
            syn::Item::Enum(item) => self.item(&item.ident),
            syn::Item::Union(item) => self.item(&item.ident),
            syn::Item::Trait(item) => self.item(&item.ident),
            syn::Item::Type(item) => self.item(&item.ident),
            syn::Item::Const(item) => self.item(&item.ident),
            syn::Item::Static(item) => self.item(&item.ident),
            syn::Item::Fn(item) => self.item(&item.sig.ident),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.as_test(&item.attrs, |reader| visit::visit_item_fn(reader, item));
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.as_test(&item.attrs, |reader| visit::visit_item_impl(reader, item));
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_macro(&mut self, makro: &'ast syn::Macro) {
        self.tokens(makro.tokens.clone());
        visit::visit_macro(self, makro);
    }
}
