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

// GetConfig returns a config with its data.
func (s *Server) GetConfig(ctx context.Context, request *api.GetConfigRequest) (*api.GetConfigResponse, error) {
	response := new(api.GetConfigResponse)
	return response, s.view(ctx, func(tx store.ReadTx) (err error) {
		response.Config, err = resolve[*api.Config](tx, request.GetConfig())
		return err
	})
}

// ListConfigs returns all configs without their data, which are too much for one answer.
func (s *Server) ListConfigs(ctx context.Context, _ *api.ListConfigsRequest) (*api.ListConfigsResponse, error) {
	response := new(api.ListConfigsResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		configs, err := store.List[*api.Config](tx)
		for _, config := range configs {
			response.Configs = append(response.Configs, &api.Config{
				Id: config.GetId(), Meta: config.GetMeta(), Spec: &api.ConfigSpec{Annotations: config.GetSpec().GetAnnotations()},
			})
		}
		return err
	})
}

// RemoveConfig removes a config that no service uses.
func (s *Server) RemoveConfig(ctx context.Context, request *api.RemoveConfigRequest) (*api.RemoveConfigResponse, error) {
	id, err := requestID(ctx, "RemoveConfig")
	if err != nil {
		return nil, err
	}
	removed, err := removeValue[*api.Config](ctx, s, id, request.GetConfig(), store.ByReferencedConfig)
	return &api.RemoveConfigResponse{ConfigId: removed}, err
}
