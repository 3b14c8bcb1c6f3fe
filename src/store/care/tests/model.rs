//! Pruning random caches beside a model that is too simple to be wrong: sets of names and of bytes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::oci::Reference;

const REPOSITORIES: [&str; 3] = ["quay.io/a", "quay.io/a/b", "ghcr.io/c"];

/// A cache to be made.
#[derive(Clone, Debug)]
struct Plan {
    /// Which blobs each manifest names.
    images: Vec<Vec<Index>>,
    /// Which manifests and earlier indexes each index names.
    indexes: Vec<Vec<Index>>,
    /// Repository, manifest or index, tag (or asked for by digest, or neither).
    names: Vec<(Index, Index, Option<u8>, bool)>,
    /// Blobs that nobody names, and manifests whose file is missing.
    garbage: BTreeSet<u8>,
    missing: Vec<Index>,
    pinned: Vec<Index>,
    request: Request,
}

#[derive(Clone, Debug)]
enum Request {
    Garbage,
    Repository(Index),
    UnusedFor(Index),
    KeepSize(u64),
    Free(u64),
    Count(Index, u64),
}

fn plan() -> impl Strategy<Value = Plan> {
    let request = prop_oneof![
        Just(Request::Garbage),
        any::<Index>().prop_map(Request::Repository),
        any::<Index>().prop_map(Request::UnusedFor),
        (0..4000u64).prop_map(Request::KeepSize),
        (0..4000u64).prop_map(Request::Free),
        (any::<Index>(), 1..4u64).prop_map(|(index, count)| Request::Count(index, count)),
    ];
    let graph = (vec(vec(any::<Index>(), 0..5), 1..8), vec(vec(any::<Index>(), 0..5), 0..5));
    let names = vec((any::<Index>(), any::<Index>(), proptest::option::of(0..4u8), any::<bool>()), 0..14);
    let rest = (btree_set(200..220u8, 0..4), vec(any::<Index>(), 0..2), vec(any::<Index>(), 0..3), request);
    (graph, names, rest).prop_map(|((images, indexes), names, (garbage, missing, pinned, request))| Plan {
        images,
        indexes,
        names,
        garbage,
        missing,
        pinned,
        request,
    })
}

fn blob(number: u8) -> Vec<u8> {
    vec![number; usize::from(number) + 1]
}

#[derive(Clone, Debug)]
struct Name {
    manifest: Bytes,
    asked: bool,
    /// Seconds ago, no two alike.
    ago: u64,
}

/// What is there, and what leads to what.
#[derive(Default)]
struct Model {
    /// Manifests and indexes by digest, with what they name.
    manifests: BTreeMap<Digest, (Bytes, BTreeSet<Digest>, BTreeSet<Digest>)>,
    blobs: BTreeMap<Digest, u64>,
    names: BTreeMap<String, (Image, Name)>,
    pinned: BTreeSet<String>,
}

impl Model {
    fn held(&self, name: &crate::oci::Name, digest: &Digest) -> Option<&Name> {
        let image = Image { name: name.clone(), reference: Reference::Digest(*digest) };
        self.names.get(&image.to_string()).map(|(_, name)| name)
    }

    /// What a name leads to: manifests, blobs, and the latest use on the way.
    fn closure(&self, image: &Image, name: &Name) -> (BTreeSet<Digest>, BTreeSet<Digest>, u64) {
        let (mut manifests, mut blobs, mut ago) = (BTreeSet::new(), BTreeSet::new(), name.ago);
        let mut left = vec![digest(&name.manifest)];
        while let Some(next) = left.pop() {
            if !manifests.insert(next) {
                continue;
            }
            ago = self.held(&image.name, &next).map_or(ago, |held| ago.min(held.ago));
            if let Some((_, children, named)) = self.manifests.get(&next) {
                left.extend(children.iter().filter(|child| self.held(&image.name, child).is_some()));
                blobs.extend(named.iter().copied());
            }
        }
        (manifests, blobs, ago)
    }

    fn roots(&self) -> Vec<String> {
        let root = |(image, name): &&(Image, Name)| {
            let text = image.to_string();
            matches!(image.reference, Reference::Tag(_)) || name.asked || self.pinned.contains(&text)
        };
        self.names.values().filter(root).map(|(image, _)| image.to_string()).collect()
    }

    /// What must be left when these roots stay.
    fn left(&self, roots: &[String]) -> (BTreeSet<String>, BTreeSet<Digest>, BTreeSet<Digest>) {
        let (mut names, mut manifests, mut blobs) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for root in roots {
            let (image, name) = &self.names[root];
            let (reached, named, _) = self.closure(image, name);
            names.insert(root.clone());
            for digest in &reached {
                let by_digest = Image { name: image.name.clone(), reference: Reference::Digest(*digest) };
                names.insert(by_digest.to_string());
            }
            manifests.extend(reached);
            blobs.extend(named);
        }
        names.retain(|name| self.names.contains_key(name));
        manifests.retain(|digest| self.manifests.contains_key(digest));
        blobs.retain(|digest| self.blobs.contains_key(digest));
        (names, manifests, blobs)
    }

    fn size(&self, roots: &[String]) -> u64 {
        let (_, manifests, blobs) = self.left(roots);
        let manifests: u64 = manifests.iter().map(|digest| self.manifests[digest].0.len() as u64).sum();
        manifests + blobs.iter().map(|digest| self.blobs[digest]).sum::<u64>()
    }

    fn whole_size(&self) -> u64 {
        let manifests: u64 = self.manifests.values().map(|(bytes, ..)| bytes.len() as u64).sum();
        manifests + self.blobs.values().sum::<u64>()
    }
}

fn build(plan: &Plan, cache: &Cache) -> Model {
    let mut model = Model::default();
    let mut bytes: Vec<Bytes> = Vec::new();
    for (number, named) in plan.images.iter().enumerate() {
        let mut blobs = vec![blob(number as u8 + 100)]; // its config, its own
        blobs.extend(named.iter().map(|index| blob(index.index(12) as u8)));
        let parts: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
        let manifest = manifest_of(&parts);
        for blob in &blobs {
            cache.blob(blob);
            model.blobs.insert(digest(blob), blob.len() as u64);
        }
        model.manifests.insert(
            digest(&manifest),
            (manifest.clone(), BTreeSet::new(), blobs.iter().map(digest).collect()),
        );
        bytes.push(manifest);
    }
    for named in &plan.indexes {
        let children: Vec<Bytes> = named.iter().map(|index| index.get(&bytes).clone()).collect();
        let parts: Vec<&[u8]> = children.iter().map(|child| &**child).collect();
        let index = index_of(&parts);
        model
            .manifests
            .insert(digest(&index), (index.clone(), children.iter().map(digest).collect(), BTreeSet::new()));
        bytes.push(index);
    }
    for manifest in &bytes {
        cache.manifest(manifest);
    }
    for index in &plan.missing {
        let manifest = index.get(&bytes);
        if model.manifests.remove(&digest(manifest)).is_some() {
            fs::remove_file(cache.path("img").join(digest(manifest).hex())).unwrap();
        }
    }
    for number in &plan.garbage {
        cache.blob(&blob(*number));
        model.blobs.insert(digest(blob(*number)), blob(*number).len() as u64);
    }
    for (number, (repository, manifest, tag, asked)) in plan.names.iter().enumerate() {
        let (repository, manifest) = (repository.get(&REPOSITORIES), manifest.get(&bytes).clone());
        let image = match tag {
            Some(tag) => image(&format!("{repository}:v{tag}")),
            None => by_digest(repository, &manifest),
        };
        let name = Name { manifest, asked: *asked && tag.is_none(), ago: 10_000 + 100 * number as u64 };
        cache.name(&image, &name.manifest, name.asked, name.ago);
        model.names.insert(image.to_string(), (image, name));
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_prune_leaves_what_kept_roots_need_and_nothing_else(plan in plan(), dry_run: bool) {
        let cache = Cache::new();
        let mut model = build(&plan, &cache);
        let all: Vec<_> = model.names.keys().cloned().collect();
        if !all.is_empty() {
            model.pinned = plan.pinned.iter().map(|index| index.get(&all).clone()).collect();
        }
        let pin = |name: &String| (name.clone(), serde_json::json!({ "since": jiff::Timestamp::now() }));
        let pins: serde_json::Map<_, _> = model.pinned.iter().map(pin).collect();
        fs::write(cache.path("pins.json"), serde_json::json!({ "pins": pins }).to_string()).unwrap();
        let store = cache.open();

        // The roots that may go, least recently used first.
        let mut roots = model.roots();
        let ago = |root: &String| {
            let (image, name) = &model.names[root];
            model.closure(image, name).2
        };
        // Two that were used at the same moment go in no certain order: those requests are made only without.
        let times: BTreeSet<_> = roots.iter().map(ago).collect();
        let ordered = times.len() == roots.len();
        roots.sort_by_key(|root| std::cmp::Reverse(ago(root)));
        let candidates: Vec<_> = roots.iter().filter(|root| !model.pinned.contains(*root)).cloned().collect();
        let after = |count: usize| -> Vec<String> {
            roots.iter().filter(|root| !candidates[..count].contains(root)).cloned().collect()
        };
        let now = jiff::Timestamp::now();
        let since = |seconds: u64| Some(now - jiff::SignedDuration::from_secs(seconds as i64));
        let (request, stay) = match plan.request {
            Request::Garbage => (only_garbage(), roots.clone()),
            Request::Repository(index) => {
                let repository = index.get(&REPOSITORIES);
                let patterns = vec![format!("^{repository}[:@]")];
                let fits = |root: &&String| {
                    root.starts_with(&format!("{repository}:")) || root.starts_with(&format!("{repository}@"))
                };
                let stay = roots.iter().filter(|root| model.pinned.contains(*root) || !fits(root)).cloned().collect();
                (PruneRequest { patterns, ..PruneRequest::default() }, stay)
            }
            Request::UnusedFor(index) => {
                let limit = 9_950 + 100 * index.index(15) as u64;
                let stay = roots.iter().filter(|root| model.pinned.contains(*root) || ago(root) < limit).cloned().collect();
                (PruneRequest { unused_since: since(limit), ..PruneRequest::default() }, stay)
            }
            Request::KeepSize(most) => {
                prop_assume!(ordered);
                let count = (0..candidates.len()).find(|count| model.size(&after(*count)) <= most);
                let request = PruneRequest { keep_size: Some(most), ..PruneRequest::default() };
                (request, after(count.unwrap_or(candidates.len())))
            }
            Request::Free(bytes) => {
                prop_assume!(ordered);
                let whole = model.whole_size();
                let enough = |count: &usize| whole - model.size(&after(*count)) >= bytes;
                let count = (0..candidates.len()).find(enough);
                let request = PruneRequest { free: Some(bytes), ..PruneRequest::default() };
                (request, after(count.unwrap_or(candidates.len())))
            }
            Request::Count(index, count) => {
                prop_assume!(ordered);
                let limit = 9_950 + 100 * index.index(15) as u64;
                let old = candidates.iter().filter(|root| ago(root) >= limit).count();
                let request = PruneRequest { unused_since: since(limit), count, ..PruneRequest::default() };
                (request, after(old.min(count as usize)))
            }
        };

        let before = (cache.files("refs"), cache.files("img"), cache.files("blobs"));
        let report = prune(&store, &PruneRequest { dry_run, ..request });
        let (names, manifests, blobs) = model.left(&stay);
        let expected_freed = model.whole_size() - model.size(&stay);
        prop_assert_eq!(report.bytes(), expected_freed);
        // One that was asked for by digest stays as long as an index or a tag needs it.
        prop_assert_eq!(report.images as usize, roots.iter().filter(|root| !names.contains(*root)).count());
        prop_assert_eq!(report.manifests.files as usize, model.manifests.len() - manifests.len());
        prop_assert_eq!(report.blobs.files as usize, model.blobs.len() - blobs.len());
        let is = (cache.files("refs"), cache.files("img"), cache.files("blobs"));
        if dry_run {
            prop_assert_eq!(is, before);
        } else {
            let path = |path: PathBuf| {
                let below = path.strip_prefix(cache.folder.path()).unwrap().to_owned();
                below.into_os_string().into_string().unwrap()
            };
            let layout = cache.folder().layout;
            let mut refs: Vec<_> =
                names.iter().map(|name| path(layout.reference(&model.names[name].0))).collect();
            refs.sort();
            prop_assert_eq!(is.0, refs);
            prop_assert_eq!(is.1, manifests.iter().map(|digest| format!("img/{}", digest.hex())).collect::<Vec<_>>());
            prop_assert_eq!(is.2, blobs.iter().map(|digest| format!("blobs/{}", digest.hex())).collect::<Vec<_>>());
            for (name, (image, _)) in &model.names {
                prop_assert_eq!(store.reference(image).is_some(), names.contains(name));
            }
        }
    }
}
