package control

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// CreateConfig stores a new config.
func (s *Server) CreateConfig(ctx context.Context, request *api.CreateConfigRequest) (*api.CreateConfigResponse, error) {
	id, err := requestID(ctx, "CreateConfig")
	if err != nil {
		return nil, err
	}
	if err := validateValue(object.KindConfig, maxConfig, request.GetSpec()); err != nil {
		return nil, err
	}
	config, err := createValue(ctx, s, id, func() *api.Config { return &api.Config{Id: id, Spec: proto.CloneOf(request.GetSpec())} })
	return &api.CreateConfigResponse{Config: config}, err
}

// UpdateConfig changes a config's value or labels.
func (s *Server) UpdateConfig(ctx context.Context, request *api.UpdateConfigRequest) (*api.UpdateConfigResponse, error) {
	id, err := requestID(ctx, "UpdateConfig")
	if err != nil {
		return nil, err
	}
	services, err := updateValue[*api.Config](ctx, s, id, request.GetConfig(), maxConfig, request.GetChange())
	if err != nil {
		return nil, err
	}
	config, err := current[*api.Config](s, request.GetConfig())
	return &api.UpdateConfigResponse{Config: config, Services: services.replaced, Rewritten: services.rewritten}, err
}

// GetConfig returns a config with its data.
func (s *Server) GetConfig(ctx context.Context, request *api.GetConfigRequest) (*api.GetConfigResponse, error) {
	response := new(api.GetConfigResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		config, err := resolve[*api.Config](tx, request.GetConfig())
		if err != nil {
			return err
		}
		response.Config = proto.CloneOf(config)
		response.Config.Version = versionOf(config)
		response.Config.Versions, err = versionsOf(tx, config)
		return err
	})
}

// ListConfigs returns all configs without their data, which are too much for one answer.
func (s *Server) ListConfigs(ctx context.Context, _ *api.ListConfigsRequest) (*api.ListConfigsResponse, error) {
	response := new(api.ListConfigsResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		configs, err := store.List[*api.Config](tx)
		for _, config := range configs {
			shown := &api.Config{
				Id: config.GetId(), Meta: config.GetMeta(), Version: versionOf(config), ValueCreatedAt: config.GetValueCreatedAt(),
				Spec: &api.ConfigSpec{Annotations: config.GetSpec().GetAnnotations(), TemplateDriver: config.GetSpec().GetTemplateDriver()},
			}
			if shown.Versions, err = versionsOf(tx, config); err != nil {
				return err
			}
			response.Configs = append(response.Configs, shown)
		}
		return err
	})
}

// RemoveConfig removes a config that no service uses, or a former version of one.
func (s *Server) RemoveConfig(ctx context.Context, request *api.RemoveConfigRequest) (*api.RemoveConfigResponse, error) {
	id, err := requestID(ctx, "RemoveConfig")
	if err != nil {
		return nil, err
	}
	removed, err := removeValue[*api.Config](ctx, s, id, request.GetConfig())
	return &api.RemoveConfigResponse{ConfigId: removed}, err
}
