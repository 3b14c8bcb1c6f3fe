//! What upstreams send for a list of tags is read, and paged by any size it is all there, once; what they send for
//! referrers is read, and what was read of it is read again as the same.

use ociregistry::oci::{Page, Referrers, TagList, tags_of};

pub fn run(input: &[u8]) {
    if let Ok(list) = tags_of(input).and_then(TagList::of) {
        for n in 1..4 {
            pages(&list, n);
        }
        assert_eq!(TagList::parse(&format!("[{}]", list.as_str())).ok(), Some(list));
    }
    if let Ok(list) = Referrers::parse(input) {
        assert_eq!(Referrers::parse(list.index()).ok().as_ref(), Some(&list));
        let typed = list.of_types(&["a/b".to_owned()]);
        assert!(typed.is_ok_and(|typed| typed.index().len() <= list.index().len()));
    }
}

fn pages(list: &TagList, n: usize) {
    let (mut all, mut last) = (Vec::new(), None);
    loop {
        let page = list.page(&Page { n: Some(n), last });
        all.extend(page.tags().map(str::to_owned));
        last = page.next;
        if last.is_none() {
            break;
        }
    }
    assert!(all.iter().eq(list.iter()), "{all:?}");
}
