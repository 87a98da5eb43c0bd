package servicespec

import (
	"slices"

	"github.com/skep-io/skep/api"
)

// grantReferences names grants for the managers, which look them up.
func grantReferences(names []string) (out []*api.GrantReference) {
	for _, name := range names {
		out = append(out, &api.GrantReference{GrantName: name})
	}
	return out
}

func (u *Update) applyGrants(c *api.ContainerSpec) {
	kept := slices.DeleteFunc(c.Grants, func(g *api.GrantReference) bool {
		return slices.Contains(u.grantRemove, g.GetGrantName()) || slices.Contains(u.grantRemove, g.GetGrantId())
	})
	for _, reference := range grantReferences(u.grantAdd) {
		if !slices.ContainsFunc(kept, func(g *api.GrantReference) bool {
			return g.GetGrantName() == reference.GetGrantName() || g.GetGrantId() == reference.GetGrantName()
		}) {
			kept = append(kept, reference)
		}
	}
	c.Grants = kept
}
