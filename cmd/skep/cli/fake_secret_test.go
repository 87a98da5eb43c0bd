package cli_test

import (
	"bytes"
	"context"
	"maps"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

func (f *fake) UpdateSecret(_ context.Context, r *api.UpdateSecretRequest) (*api.UpdateSecretResponse, error) {
	out := &api.UpdateSecretResponse{}
	return out, f.change(func() error {
		secret, err := lookUp("secret", f.secrets, secretNamed, r.GetSecret())
		if err != nil {
			return err
		}
		secret = proto.CloneOf(secret)
		if data := r.GetChange().GetData(); len(data) > 0 && !bytes.Equal(data, f.secretData[secret.GetId()]) {
			f.secretData[secret.GetId()], secret.Version = data, max(1, secret.GetVersion())+1
			secret.Versions = []*api.ValueVersion{{Number: secret.GetVersion()}}
		}
		maps.Copy(secret.GetSpec().GetAnnotations().GetLabels(), r.GetChange().GetLabelAdd())
		for _, key := range r.GetChange().GetLabelRemove() {
			delete(secret.GetSpec().GetAnnotations().GetLabels(), key)
		}
		f.secrets[secret.GetId()], out.Secret = secret, secret
		return nil
	})
}
