package view

import (
	"slices"
	"time"

	"github.com/skep-io/skep/api"
)

// Value is a secret without its data, or a config.
type Value struct {
	Meta
	Spec ValueSpec
	// Versions are the newest first.
	Versions []ValueVersion `json:",omitempty"`
}

// ValueVersion is one version of a secret or config: who uses it, and which nodes and tasks have it.
type ValueVersion struct {
	Number    uint64
	CreatedAt time.Time
	Services  []string
	Nodes     []string
	Tasks     []string
}

// Newest returns the number of the newest version.
func (v Value) Newest() uint64 {
	if len(v.Versions) == 0 {
		return 1
	}
	return v.Versions[0].Number
}

// Services returns all services that use any version.
func (v Value) Services() []string {
	return v.users(func(version ValueVersion) []string { return version.Services })
}

// Nodes returns all nodes that have any version.
func (v Value) Nodes() []string {
	return v.users(func(version ValueVersion) []string { return version.Nodes })
}

func (v Value) users(of func(ValueVersion) []string) (all []string) {
	for _, version := range v.Versions {
		all = append(all, of(version)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// ValueSpec is a secret's or config's name and, of a config, data.
type ValueSpec struct {
	Name   string
	Labels map[string]string
	Data   []byte `json:",omitempty"`
	// Templating is unset when the value is no template.
	Templating *Driver `json:",omitempty"`
}

// Driver names what fills in a template.
type Driver struct{ Name string }

// NewSecret shows a secret. Its data, if the message had any, is not taken over.
func NewSecret(s *api.Secret) Value {
	return Value{Meta: metaOf(s.GetId(), s.GetMeta()), Spec: valueSpec(s.GetSpec()), Versions: valueVersions(s.GetVersions())}
}

// NewConfig shows a config, with its data if the message has any.
func NewConfig(c *api.Config) Value {
	out := Value{Meta: metaOf(c.GetId(), c.GetMeta()), Spec: valueSpec(c.GetSpec()), Versions: valueVersions(c.GetVersions())}
	out.Spec.Data = c.GetSpec().GetData()
	return out
}

func valueSpec(s interface {
	GetAnnotations() *api.Annotations
	GetTemplateDriver() string
},
) ValueSpec {
	out := ValueSpec{Name: s.GetAnnotations().GetName(), Labels: labelsOf(s.GetAnnotations().GetLabels())}
	if driver := s.GetTemplateDriver(); driver != "" {
		out.Templating = &Driver{driver}
	}
	return out
}

func valueVersions(versions []*api.ValueVersion) (out []ValueVersion) {
	for _, v := range versions {
		out = append(out, ValueVersion{
			Number: v.GetNumber(), CreatedAt: timeOf(v.GetCreatedAt()),
			Services: append([]string{}, v.GetServices()...), Nodes: append([]string{}, v.GetNodes()...),
			Tasks: append([]string{}, v.GetTasks()...),
		})
	}
	return out
}
