package privilege

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/security"
)

// Excess is something that a container asks for, that the default one has not, and that no grant gives it.
type Excess struct {
	// What names it: "capability CAP_NET_ADMIN".
	What string
	// Option is how `skep grant create` gives it: "--cap-add NET_ADMIN".
	Option string
}

// capabilityFlag is how `skep grant create` gives a capability.
const capabilityFlag = "--cap-add "

// Excesses returns what a task asks for beyond the default and beyond its grants, in a fixed order.
func Excesses(task *api.TaskSpec, grants []*api.Grant) []Excess {
	c := task.GetContainer()
	granted := grantedCapabilities(grants)
	all := slices.Contains(granted, AllCapabilities)
	var out []Excess
	for _, name := range effective(c.GetCapabilityAdd(), c.GetCapabilityDrop()) {
		if !all && !slices.Contains(granted, name) && !slices.Contains(DefaultCapabilities(), name) {
			out = append(out, Excess{"capability " + name, capabilityFlag + strings.TrimPrefix(name, capabilityPrefix)})
		}
	}
	out = append(out, mountExcesses(c, grants)...)
	for _, w := range security.Weaknesses(task) {
		if !slices.ContainsFunc(grants, func(g *api.Grant) bool { return allows(g, w.Option) }) {
			out = append(out, Excess{w.Option + " (" + w.Means + ")", flagOf(w.Option)})
		}
	}
	return out
}

// flagOf is how `skep grant create` allows an option.
func flagOf(option string) string {
	switch option {
	case security.UsernsHost, security.PIDHost, security.IPCHost, security.NetworkHost:
		return "--" + strings.Replace(option, "=", " ", 1)
	}
	return "--security-opt " + option
}

// Closed names the first of the grants that a kind of caller may neither hand out nor make use of: to give a container another program,
// or to run one in it, is to have what the container has. It is empty where there is none.
func Closed(caller api.Caller, grants []*api.Grant) string {
	if caller == api.Caller_CALLER_ADMIN || caller == api.Caller_CALLER_MANAGER {
		return ""
	}
	for _, g := range grants {
		if !g.GetSpec().GetOperators() {
			return nameOf(g)
		}
	}
	return ""
}

// SameGift reports whether two grants give a task the same, on the same nodes. What they allow beside that, and to whom, may differ.
func SameGift(a, b *api.Grant) bool {
	gift := func(g *api.Grant) *api.GrantSpec {
		spec := g.GetSpec()
		return &api.GrantSpec{
			Capabilities: spec.GetCapabilities(), Devices: spec.GetDevices(), Mounts: spec.GetMounts(), NodeLabels: spec.GetNodeLabels(),
			CdiDevices: spec.GetCdiDevices(), IgnoreCdiHooks: spec.GetIgnoreCdiHooks(),
		}
	}
	return proto.Equal(gift(a), gift(b))
}

// grantedCapabilities returns all that some grant names; ALL among them stands for every one.
func grantedCapabilities(grants []*api.Grant) (names []string) {
	for _, g := range grants {
		names = append(names, g.GetSpec().GetCapabilities()...)
	}
	return names
}

// maxListed bounds how many excesses an error lists: --cap-add ALL has 27.
const maxListed = 5

// Names lists for an error what is in excess.
func Names(excesses []Excess) string {
	var whats []string
	for _, e := range excesses[:min(len(excesses), maxListed)] {
		whats = append(whats, e.What)
	}
	list := strings.Join(whats, ", ")
	if more := len(excesses) - maxListed; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}

// Explain says for an error what is in excess, and what to do about it.
func Explain(excesses []Excess) string {
	verb := "is"
	if len(excesses) > 1 {
		verb = "are"
	}
	return fmt.Sprintf("%s %s beyond what containers have by default, and no grant of the service gives it: "+
		"an administrator makes one with `skep grant create NAME %s`, and the service names it with --grant NAME",
		Names(excesses), verb, strings.Join(remedies(excesses), " "))
}

// remedies are the options of `skep grant create` that give what is in excess, all of it: ALL stands for every capability.
func remedies(excesses []Excess) []string {
	var options []string
	for _, e := range excesses {
		options = append(options, e.Option)
	}
	isCapability := func(option string) bool { return strings.HasPrefix(option, capabilityFlag) }
	others := slices.DeleteFunc(slices.Clone(options), isCapability)
	if len(options)-len(others) == len(Capabilities())-len(DefaultCapabilities()) {
		return slices.Insert(others, 0, capabilityFlag+AllCapabilities)
	}
	return options
}
