package compose

import (
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
)

// order returns the names of services so that each comes after those that it depends on (I4), else by name. compose-go has refused
// circles, and services that are not there.
func order(services types.Services) []string {
	var out []string
	placed := map[string]bool{}
	var place func(name string)
	place = func(name string) {
		service, there := services[name]
		if !there || placed[name] {
			return
		}
		placed[name] = true
		for _, before := range slices.Sorted(maps.Keys(service.DependsOn)) {
			place(before)
		}
		out = append(out, name)
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		place(name)
	}
	return out
}
