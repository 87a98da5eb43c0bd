package servicespec

import (
	"slices"
	"strings"
)

const (
	// allCapabilities stands for every capability, and resetCapabilities takes back what earlier commands asked for.
	allCapabilities   = "ALL"
	resetCapabilities = "RESET"
	capabilityPrefix  = "CAP_"
)

// normalCapability returns a capability as the kernel writes it: NET_ADMIN and cap_net_admin are CAP_NET_ADMIN.
func normalCapability(name string) string {
	name = strings.ToUpper(strings.TrimSpace(name))
	if name == allCapabilities || name == resetCapabilities || strings.HasPrefix(name, capabilityPrefix) {
		return name
	}
	return capabilityPrefix + name
}

// changeCapabilities adds and drops capabilities, starting from those that the service already adds and drops. A
// capability that is named on one side leaves the other; RESET empties its side first; one that is named on both sides
// now is added. The results are sorted.
func changeCapabilities(added, dropped, add, drop []string) (newAdded, newDropped []string) {
	adds, drops := setOf(added), setOf(dropped)
	for _, name := range normalAll(drop) {
		if name == resetCapabilities {
			clear(drops)
			continue
		}
		drops[name] = true
		delete(adds, name)
	}
	for _, name := range normalAll(add) {
		if name == resetCapabilities {
			clear(adds)
			continue
		}
		adds[name] = true
		delete(drops, name)
	}
	return sorted(adds), sorted(drops)
}

// normalAll returns normal names with RESET before all others, so that its place among the flags does not matter.
func normalAll(names []string) []string {
	out := make([]string, 0, len(names))
	for _, name := range names {
		name = normalCapability(name)
		if name == resetCapabilities {
			out = slices.Insert(out, 0, name)
			continue
		}
		out = append(out, name)
	}
	return out
}

func setOf(names []string) map[string]bool {
	out := map[string]bool{}
	for _, name := range names {
		out[normalCapability(name)] = true
	}
	return out
}

func sorted(set map[string]bool) []string {
	if len(set) == 0 {
		return nil
	}
	out := make([]string, 0, len(set))
	for name := range set {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
