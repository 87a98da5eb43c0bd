package view

import "github.com/skep-io/skep/api"

// Value is a secret without its data, or a config.
type Value struct {
	Meta
	Spec ValueSpec
}

// ValueSpec is a secret's or config's name and, of a config, data.
type ValueSpec struct {
	Name   string
	Labels map[string]string
	Data   []byte `json:",omitempty"`
}

// NewSecret shows a secret. Its data, if the message had any, is not taken over.
func NewSecret(s *api.Secret) Value {
	return Value{Meta: metaOf(s.GetId(), s.GetMeta()), Spec: valueSpec(s.GetSpec().GetAnnotations())}
}

// NewConfig shows a config, with its data if the message has any.
func NewConfig(c *api.Config) Value {
	out := Value{Meta: metaOf(c.GetId(), c.GetMeta()), Spec: valueSpec(c.GetSpec().GetAnnotations())}
	out.Spec.Data = c.GetSpec().GetData()
	return out
}

func valueSpec(a *api.Annotations) ValueSpec {
	return ValueSpec{Name: a.GetName(), Labels: labelsOf(a.GetLabels())}
}
