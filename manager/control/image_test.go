package control_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/storetest"
)

func TestService_RefusesAnUnknownImage(t *testing.T) {
	for image, want := range map[string]string{
		"nope":           "image nope:latest is on no node: load it with `skep image load` on any node",
		"app@" + digestB: "is on no node",
		"0123456789ab":   "image 0123456789ab is on no node: load it",
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSwarm(t)
			spec := web(func(spec *api.ServiceSpec) { spec.Task.Container.Image = image })
			_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: spec})
			wantFault(t, err, fault.NotFound, want)
			old := s.createService(t, web())
			_, err = s.UpdateService(t.Context(), &api.UpdateServiceRequest{
				ServiceId: old.GetId(), Version: old.GetMeta().GetVersion(), Spec: spec,
			})
			wantFault(t, err, fault.NotFound, want)
		})
	}
}

func TestCreateService_PinsTheImageLoadedLast(t *testing.T) {
	s := newSwarm(t)
	down := node("worker3", api.Role_ROLE_WORKER, image("docker.io/library/app:1", "sha256:"+strings.Repeat("c", 64), 300))
	down.Status.State = api.NodeState_NODE_STATE_DOWN
	storetest.Create(t, s.store, node("worker2", api.Role_ROLE_WORKER, image("docker.io/library/app:1", digestB, 200)), down)
	for image, want := range map[string]string{
		"app:1":                              "docker.io/library/app:1@" + digestB,
		"docker.io/library/app:1":            "docker.io/library/app:1@" + digestB,
		"app@" + digestA:                     "docker.io/library/app@" + digestA,
		"docker.io/library/app:1@" + digestA: "docker.io/library/app:1@" + digestA,
	} {
		service := s.createService(t, web(func(spec *api.ServiceSpec) {
			spec.Annotations.Name = ""
			spec.Task.Container.Image = image
		}))
		if got := service.GetSpec().GetTask().GetContainer().GetImage(); got != want {
			t.Errorf("image %s: got %s, want %s", image, got, want)
		}
	}
}

func TestService_TakesAnImageByItsID(t *testing.T) {
	s := newSwarm(t)
	const (
		nameless = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
		twin1    = "sha256:fedcba9876543210aa23456789abcdef0123456789abcdef0123456789abcdef"
		twin2    = "sha256:fedcba9876543210bb23456789abcdef0123456789abcdef0123456789abcdef"
		facade   = "docker.io/library/aaaaaaaaaaaa:latest"
	)
	gone := node("worker3", api.Role_ROLE_WORKER, &api.ImageSummary{Digest: "sha256:0123456789ab" + strings.Repeat("c", 52)})
	gone.Status.State = api.NodeState_NODE_STATE_DOWN
	storetest.Create(t, s.store, gone, node("worker2", api.Role_ROLE_WORKER,
		&api.ImageSummary{Digest: nameless}, &api.ImageSummary{Digest: twin1}, &api.ImageSummary{Digest: twin2}, image(facade, digestB, 200),
	))
	for image, want := range map[string]string{
		"0123456789ab":                          nameless,
		"sha256:0123456789ab":                   nameless,
		nameless:                                nameless,
		nameless[7:]:                            nameless,
		"docker.io/library/0123456789ab:latest": nameless, // as clients normalise it
		"docker.io/library/" + nameless:         nameless,
		"fedcba9876543210a":                     twin1,
		"aaaaaaaaaaaa":                          facade + "@" + digestB, // a name counts before an id
	} {
		service := s.createService(t, web(func(spec *api.ServiceSpec) {
			spec.Annotations.Name = ""
			spec.Task.Container.Image = image
		}))
		if got := service.GetSpec().GetTask().GetContainer().GetImage(); got != want {
			t.Errorf("image %s: got %s, want %s", image, got, want)
		}
	}
	_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(func(spec *api.ServiceSpec) {
		spec.Task.Container.Image = "fedcba9876543210"
	})})
	wantFault(t, err, fault.Invalid, "image fedcba9876543210 is ambiguous")
}

func TestUpdateService_KeepsTheDigestOfAnImageThatIsGone(t *testing.T) {
	s := newSwarm(t)
	old := s.createService(t, web(func(spec *api.ServiceSpec) { spec.Task.Container.Image = digestA }))
	setNode(t, s, "worker1", func(n *api.Node) { n.Description.Images = nil })
	spec := proto.CloneOf(old.GetSpec())
	spec.Replicated.Replicas = 3
	response, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{
		ServiceId: old.GetId(), Version: old.GetMeta().GetVersion(), Spec: spec,
	})
	if got := response.GetService().GetSpec().GetTask().GetContainer().GetImage(); err != nil || got != digestA {
		t.Errorf("got image %q, %v, want %s", got, err, digestA)
	}
}

func TestCreateService_WaitsForTheNewsOfAnImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		go func() {
			time.Sleep(time.Second)
			storetest.Create(t, s.store, node("worker2", api.Role_ROLE_WORKER, image("docker.io/library/late:1", digestB, 200)))
		}()
		start := time.Now()
		service := s.createService(t, web(func(spec *api.ServiceSpec) { spec.Task.Container.Image = "late:1" }))
		if got := service.GetSpec().GetTask().GetContainer().GetImage(); got != "docker.io/library/late:1@"+digestB {
			t.Errorf("image: got %s", got)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %s, want the second until the image is known", took)
		}
	})
}

func TestUpdateService_KeepsAPinnedImageThatNoNodeHas(t *testing.T) {
	s := newSwarm(t)
	old := s.createService(t, web())
	setNode(t, s, "worker1", func(n *api.Node) { n.Description.Images = nil })
	spec := proto.CloneOf(old.GetSpec())
	spec.Replicated.Replicas = 7
	if _, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{ServiceId: "web", Version: old.GetMeta().GetVersion(), Spec: spec}); err != nil {
		t.Error(err)
	}
}

// An image that is mounted is pinned as the service's own is, and stays what it was while others are changed.
func TestService_PinsTheImagesThatItMounts(t *testing.T) {
	s := newSwarm(t)
	const data, pinned = "docker.io/library/data:1", "docker.io/library/data:1@" + digestB
	storetest.Create(t, s.store, node("worker2", api.Role_ROLE_WORKER, image(data, digestB, 200)))
	mounts := func(sources ...string) func(*api.ServiceSpec) {
		return func(spec *api.ServiceSpec) {
			for i, source := range sources {
				spec.Task.Container.Mounts = append(spec.Task.Container.Mounts, &api.Mount{
					Type: api.MountType_MOUNT_TYPE_IMAGE, Source: source, Target: fmt.Sprintf("/%d", i),
				})
			}
		}
	}
	old := s.createService(t, web(mounts("data:1")))
	m := old.GetSpec().GetTask().GetContainer().GetMounts()[0]
	if m.GetSource() != pinned || !m.GetReadOnly() {
		t.Errorf("got %v", m)
	}
	setNode(t, s, "worker2", func(n *api.Node) { n.Description.Images = nil })
	spec := proto.CloneOf(old.GetSpec())
	spec.Task.Container.Hostname = "other"
	response, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{ServiceId: "web", Version: old.GetMeta().GetVersion(), Spec: spec})
	if err != nil || response.GetService().GetSpec().GetTask().GetContainer().GetMounts()[0].GetSource() != pinned {
		t.Errorf("got %v, %v", response, err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(mounts("none:1"))})
		wantFault(t, err, fault.NotFound, "mount at /0: image none:1 is on no node: load it")
	})
}
