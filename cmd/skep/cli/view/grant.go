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
	Name         string
	Labels       map[string]string
	Description  string            `json:",omitempty"`
	Operators    bool              `json:",omitempty"`
	Capabilities []string          `json:",omitempty"`
	NodeLabels   map[string]string `json:",omitempty"`
}

// NewGrant shows a grant.
func NewGrant(g *api.Grant) Grant {
	spec := g.GetSpec()
	return Grant{Meta: metaOf(g.GetId(), g.GetMeta()), Spec: GrantSpec{
		Name: spec.GetAnnotations().GetName(), Labels: labelsOf(spec.GetAnnotations().GetLabels()), Description: spec.GetDescription(),
		Operators: spec.GetOperators(), Capabilities: spec.GetCapabilities(), NodeLabels: spec.GetNodeLabels(),
	}}
}

// Gives lists what a container gets, in a few words each.
func (g Grant) Gives() (what []string) {
	for _, name := range g.Spec.Capabilities {
		what = append(what, strings.TrimPrefix(name, "CAP_"))
	}
	return what
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
