package view

import "github.com/skep-io/skep/api"

// Secret is a secret without its data.
type Secret struct {
	Meta
	Spec SecretSpec
}

// SecretSpec names a secret.
type SecretSpec struct {
	Name   string
	Labels map[string]string
}

// NewSecret shows a secret. Its data, if the message had any, is not taken over.
func NewSecret(s *api.Secret) Secret {
	annotations := s.GetSpec().GetAnnotations()
	return Secret{
		Meta: metaOf(s.GetId(), s.GetMeta()),
		Spec: SecretSpec{Name: annotations.GetName(), Labels: labelsOf(annotations.GetLabels())},
	}
}
