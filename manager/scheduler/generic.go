package scheduler

import (
	"cmp"
	"slices"

	"github.com/skep-io/skep/api"
)

// maxIDs bounds what a node's word costs: its ids are searched for each task that wants some.
const maxIDs = 1024

// pool is what a node has of one kind of generic resource, and what its tasks have of that.
type pool struct {
	count int64
	ids   []string // or nil
	// taken holds the ids that tasks have, whether the node still has them or not.
	taken map[string]int
	// unnamed is how many tasks have without an id.
	unnamed int64
}

// free returns how many nobody has. It is negative on a node that has fewer than it had.
func (p *pool) free() int64 {
	if p == nil {
		return 0
	}
	if p.ids == nil {
		return p.count - p.unnamed - int64(len(p.taken))
	}
	free := -p.unnamed
	for _, id := range p.ids {
		if p.taken[id] == 0 {
			free++
		}
	}
	return free
}

// claim takes so many, the first ids that are free.
func (p *pool) claim(kind string, count int64) *api.GenericResource {
	claimed := &api.GenericResource{Kind: kind}
	for _, id := range p.ids {
		if count > 0 && p.taken[id] == 0 {
			claimed.Ids = append(claimed.Ids, id)
			count--
		}
	}
	claimed.Count = count
	p.change(claimed, 1)
	return claimed
}

// change counts what a task has, or with -1 takes it back.
func (p *pool) change(resource *api.GenericResource, by int) {
	p.unnamed += int64(by) * resource.GetCount()
	for _, id := range resource.GetIds() {
		if p.taken == nil {
			p.taken = map[string]int{}
		}
		p.taken[id] += by
		if p.taken[id] == 0 {
			delete(p.taken, id)
		}
	}
}

// pool returns the node's pool of a kind, making it if there is none: tasks may have what the node has no more.
func (n *node) pool(kind string) *pool {
	if n.generic == nil {
		n.generic = map[string]*pool{}
	}
	if n.generic[kind] == nil {
		n.generic[kind] = &pool{}
	}
	return n.generic[kind]
}

// setGeneric replaces what the node has.
func (n *node) setGeneric(resources []*api.GenericResource) {
	for kind, p := range n.generic {
		if p.count, p.ids = 0, nil; p.unnamed == 0 && len(p.taken) == 0 {
			delete(n.generic, kind)
		}
	}
	for _, r := range resources {
		p := n.pool(r.GetKind())
		p.count, p.ids = r.GetCount(), r.GetIds()[:min(len(r.GetIds()), maxIDs)]
	}
}

// claimGeneric gives a task what it needs, unless it has that already.
func (n *node) claimGeneric(t *task) {
	if t.generic = t.api.GetGenericResources(); t.generic != nil {
		for _, r := range t.generic {
			n.pool(r.GetKind()).change(r, 1)
		}
		return
	}
	for _, r := range t.need.generic {
		t.generic = append(t.generic, n.pool(r.GetKind()).claim(r.GetKind(), r.GetCount()))
	}
}

// releaseGeneric takes back what a task has.
func (n *node) releaseGeneric(t *task) {
	for _, r := range t.generic {
		n.pool(r.GetKind()).change(r, -1)
	}
	t.generic = nil
}

// genericNeed returns what a task reserves, ordered by kind.
func genericNeed(reserved []*api.GenericResource) []*api.GenericResource {
	if len(reserved) == 0 {
		return nil
	}
	needed := slices.DeleteFunc(slices.Clone(reserved), func(r *api.GenericResource) bool { return r.GetCount() <= 0 })
	slices.SortFunc(needed, func(a, b *api.GenericResource) int { return cmp.Compare(a.GetKind(), b.GetKind()) })
	return needed
}
