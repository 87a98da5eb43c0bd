package control

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// withoutData returns a copy of a secret that may leave the managers (C1).
func withoutData(secret *api.Secret) *api.Secret {
	return &api.Secret{
		Id: secret.GetId(), Meta: secret.GetMeta(), Version: versionOf(secret), ValueCreatedAt: secret.GetValueCreatedAt(),
		Spec: &api.SecretSpec{Annotations: secret.GetSpec().GetAnnotations(), TemplateDriver: secret.GetSpec().GetTemplateDriver()},
	}
}

// CreateSecret stores a new secret.
func (s *Server) CreateSecret(ctx context.Context, request *api.CreateSecretRequest) (*api.CreateSecretResponse, error) {
	id, err := requestID(ctx, "CreateSecret")
	if err != nil {
		return nil, err
	}
	if err := validateValue(object.KindSecret, maxSecret, request.GetSpec()); err != nil {
		return nil, err
	}
	secret, err := createValue(ctx, s, id, func() *api.Secret { return &api.Secret{Id: id, Spec: proto.CloneOf(request.GetSpec())} })
	if err != nil {
		return nil, err
	}
	return &api.CreateSecretResponse{Secret: withoutData(secret)}, nil
}

// UpdateSecret changes a secret's value or labels.
func (s *Server) UpdateSecret(ctx context.Context, request *api.UpdateSecretRequest) (*api.UpdateSecretResponse, error) {
	id, err := requestID(ctx, "UpdateSecret")
	if err != nil {
		return nil, err
	}
	services, err := updateValue[*api.Secret](ctx, s, id, request.GetSecret(), maxSecret, request.GetChange())
	if err != nil {
		return nil, err
	}
	secret, err := current[*api.Secret](s, request.GetSecret())
	return &api.UpdateSecretResponse{Secret: withoutData(secret), Services: services.replaced, Rewritten: services.rewritten}, err
}

// GetSecret returns a secret without its data.
func (s *Server) GetSecret(ctx context.Context, request *api.GetSecretRequest) (*api.GetSecretResponse, error) {
	response := new(api.GetSecretResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		secret, err := resolve[*api.Secret](tx, request.GetSecret())
		if err != nil {
			return err
		}
		response.Secret = withoutData(secret)
		response.Secret.Versions, err = versionsOf(tx, secret)
		return err
	})
}

// ListSecrets returns all secrets without their data.
func (s *Server) ListSecrets(ctx context.Context, _ *api.ListSecretsRequest) (*api.ListSecretsResponse, error) {
	response := new(api.ListSecretsResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		secrets, err := store.List[*api.Secret](tx)
		for _, secret := range secrets {
			shown := withoutData(secret)
			if shown.Versions, err = versionsOf(tx, secret); err != nil {
				return err
			}
			response.Secrets = append(response.Secrets, shown)
		}
		return err
	})
}

// RemoveSecret removes a secret that no service uses, or a former version of one.
func (s *Server) RemoveSecret(ctx context.Context, request *api.RemoveSecretRequest) (*api.RemoveSecretResponse, error) {
	id, err := requestID(ctx, "RemoveSecret")
	if err != nil {
		return nil, err
	}
	removed, err := removeValue[*api.Secret](ctx, s, id, request.GetSecret())
	return &api.RemoveSecretResponse{SecretId: removed}, err
}

// inUse says which services keep an object from being removed.
func inUse(kind, name string, users []*api.Service) error {
	var names []string
	for _, service := range users {
		names = append(names, service.GetSpec().GetAnnotations().GetName())
	}
	slices.Sort(names)
	noun := "service"
	if len(names) > 1 {
		noun = "services"
	}
	return fault.New(fault.Precondition, "%s '%s' is in use by the following %s: %s", kind, name, noun, strings.Join(names, ", "))
}
