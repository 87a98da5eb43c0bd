package view

import (
	"strings"

	"github.com/skep-io/skep/api"
)

// Grant is a named set of privileges that services can have.
type Grant struct {
	Meta
	Spec GrantSpec
}

// GrantSpec says what a grant gives, and to whose services.
type GrantSpec struct {
	Name            string
	Labels          map[string]string
	Description     string            `json:",omitempty"`
	Operators       bool              `json:",omitempty"`
	Capabilities    []string          `json:",omitempty"`
	Devices         []GrantDevice     `json:",omitempty"`
	CDIDevices      []string          `json:",omitempty"`
	IgnoreCDIHooks  bool              `json:",omitempty"`
	Mounts          []GrantMount      `json:",omitempty"`
	SecurityOptions []string          `json:",omitempty"`
	NodeLabels      map[string]string `json:",omitempty"`
}

// GrantDevice is a device of the host.
type GrantDevice struct {
	Path        string
	Permissions string
}

// GrantMount is a file or directory of the host.
type GrantMount struct {
	Source   string
	Target   string
	ReadOnly bool `json:",omitempty"`
	// Propagation is Docker's word, or "" for rprivate.
	Propagation string `json:",omitempty"`
}

// NewGrant shows a grant.
func NewGrant(g *api.Grant) Grant {
	spec := g.GetSpec()
	out := Grant{Meta: metaOf(g.GetId(), g.GetMeta()), Spec: GrantSpec{
		Name: spec.GetAnnotations().GetName(), Labels: labelsOf(spec.GetAnnotations().GetLabels()), Description: spec.GetDescription(),
		CDIDevices: spec.GetCdiDevices(), IgnoreCDIHooks: spec.GetIgnoreCdiHooks(), Operators: spec.GetOperators(), Capabilities: spec.GetCapabilities(), SecurityOptions: spec.GetSecurityOptions(), NodeLabels: spec.GetNodeLabels(),
	}}
	for _, d := range spec.GetDevices() {
		out.Spec.Devices = append(out.Spec.Devices, GrantDevice{Path: d.GetPath(), Permissions: d.GetPermissions()})
	}
	for _, m := range spec.GetMounts() {
		out.Spec.Mounts = append(out.Spec.Mounts, GrantMount{
			Source: m.GetSource(), Target: m.GetTarget(), ReadOnly: m.GetReadOnly(), Propagation: propagationWord(m.GetPropagation()),
		})
	}
	return out
}

// Gives lists what a container gets, in a few words each.
func (g Grant) Gives() (what []string) {
	for _, name := range g.Spec.Capabilities {
		what = append(what, strings.TrimPrefix(name, "CAP_"))
	}
	for _, d := range g.Spec.Devices {
		what = append(what, d.Path+":"+d.Permissions)
	}
	what = append(what, g.Spec.CDIDevices...)
	for _, m := range g.Spec.Mounts {
		text := m.Source
		if m.Target != m.Source {
			text += ":" + m.Target
		}
		var options []string
		if m.ReadOnly {
			options = append(options, "ro")
		}
		if m.Propagation != "" {
			options = append(options, m.Propagation)
		}
		if len(options) > 0 {
			text += ":" + strings.Join(options, ",")
		}
		what = append(what, text)
	}
	return append(what, g.Spec.SecurityOptions...)
}

// GrantReference names a grant of a container.
type GrantReference struct {
	GrantID   string
	GrantName string
}

func grantReferences(references []*api.GrantReference) (out []GrantReference) {
	for _, r := range references {
		out = append(out, GrantReference{GrantID: r.GetGrantId(), GrantName: r.GetGrantName()})
	}
	return out
}
