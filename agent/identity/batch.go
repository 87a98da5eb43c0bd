package identity

import (
	"crypto/ecdsa"
	"errors"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
)

// batch is one request for several tasks, with the keys that stay here (W1).
type batch struct {
	keys     []*ecdsa.PrivateKey
	requests []*api.WorkloadRequest
	answers  []*api.WorkloadAnswer
}

// newBatch makes a key for each task.
func newBatch(ids []string) (batch, error) {
	var b batch
	for _, id := range ids {
		key, err := ca.NewKey()
		if err != nil {
			return batch{}, err
		}
		csr, err := ca.NewCSR(key)
		if err != nil {
			return batch{}, err
		}
		b.keys = append(b.keys, key)
		b.requests = append(b.requests, &api.WorkloadRequest{TaskId: id, Csr: csr})
	}
	return b, nil
}

// svid returns what answer i gives, or why it gives nothing.
func (b batch) svid(i int) (svid, error) {
	if why := b.answers[i].GetRefusal(); why != "" {
		return svid{}, errors.New(why)
	}
	return newSVID(b.answers[i].GetCertificate(), b.keys[i])
}
