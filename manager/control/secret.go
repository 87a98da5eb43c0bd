package control

import (
	"context"
	"errors"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// maxSecret is the size in bytes of the largest secret: 500 KiB, one byte more than Swarm's.
const maxSecret = 500 * 1024

// withoutData returns a copy of a secret that may leave the managers (C1).
func withoutData(secret *api.Secret) *api.Secret {
	return &api.Secret{
		Id: secret.GetId(), Meta: secret.GetMeta(),
		Spec: &api.SecretSpec{Annotations: secret.GetSpec().GetAnnotations()},
	}
}

// validateSecret reports all problems of a secret's spec, without repeating any of its data.
func validateSecret(spec *api.SecretSpec) error {
	p := new(problems)
	p.knownFields(spec)
	name := spec.GetAnnotations().GetName()
	switch {
	case name == "":
		p.add("annotations.name", "name must be provided")
	case len(name) > maxSecretName || !secretNamePattern.MatchString(name):
		p.add("annotations.name", "invalid name, only %d [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
			maxSecretName)
	}
	p.labels("annotations.labels", spec.GetAnnotations().GetLabels())
	if n := len(spec.GetData()); n == 0 || n > maxSecret {
		p.add("data", "secret data must be 1 to %d bytes, got %d", maxSecret, n)
	}
	return p.err()
}

// CreateSecret stores a new secret.
func (s *Server) CreateSecret(ctx context.Context, request *api.CreateSecretRequest) (*api.CreateSecretResponse, error) {
	id, err := requestID(ctx, "CreateSecret")
	if err != nil {
		return nil, err
	}
	if err := validateSecret(request.GetSpec()); err != nil {
		return nil, err
	}
	err = s.update(ctx, id, func(tx store.Tx) error {
		err := tx.Create(&api.Secret{Id: id, Spec: proto.CloneOf(request.GetSpec())})
		if errors.Is(err, store.ErrNameConflict) {
			return fault.New(fault.AlreadyExists, "secret %s already exists", request.GetSpec().GetAnnotations().GetName())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	secret, err := current[*api.Secret](s, id)
	if err != nil {
		return nil, err
	}
	return &api.CreateSecretResponse{Secret: withoutData(secret)}, nil
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
		return nil
	})
}

// ListSecrets returns all secrets without their data.
func (s *Server) ListSecrets(ctx context.Context, _ *api.ListSecretsRequest) (*api.ListSecretsResponse, error) {
	response := new(api.ListSecretsResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		secrets, err := store.List[*api.Secret](tx)
		for _, secret := range secrets {
			response.Secrets = append(response.Secrets, withoutData(secret))
		}
		return err
	})
}

// RemoveSecret removes a secret that no service uses.
func (s *Server) RemoveSecret(ctx context.Context, request *api.RemoveSecretRequest) (*api.RemoveSecretResponse, error) {
	id, err := requestID(ctx, "RemoveSecret")
	if err != nil {
		return nil, err
	}
	response := &api.RemoveSecretResponse{SecretId: request.GetSecret()}
	return response, s.update(ctx, id, func(tx store.Tx) error {
		secret, err := resolve[*api.Secret](tx, request.GetSecret())
		if err != nil {
			return err
		}
		users, err := store.List[*api.Service](tx, store.ByReferencedSecret(secret.GetId()))
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return inUse("secret", secret.GetSpec().GetAnnotations().GetName(), users)
		}
		response.SecretId = secret.GetId()
		// A service that starts to use it at this moment requires that it is there, and this requires that no service has changed:
		// whichever comes second runs again.
		tx.RequireKind(object.KindService)
		return tx.Delete(object.KindSecret, secret.GetId())
	})
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
