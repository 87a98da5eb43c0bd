package control_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/control"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

func TestRotateDataKeys_CountsRequestsOnce(t *testing.T) {
	s := newSwarm(t)
	for _, tt := range []struct {
		requestID string
		want      uint64
	}{{"1", 1}, {"1", 1}, {"2", 2}} {
		response, err := s.RotateDataKeys(withRequestID(t, tt.requestID), &api.RotateDataKeysRequest{})
		if err != nil || response.GetGeneration() != tt.want {
			t.Errorf("request %s: generation %d, %v; want %d", tt.requestID, response.GetGeneration(), err, tt.want)
		}
	}
	cluster, err := s.GetCluster(t.Context(), &api.GetClusterRequest{})
	if err != nil || cluster.GetCluster().GetDataKeyGeneration() != 2 {
		t.Errorf("cluster: %v, %v", cluster, err)
	}
}

func TestReportDataKey_ShowsOnManagersOnly(t *testing.T) {
	s := newSwarm(t)
	storetest.Create(t, s.store, node("m1", api.Role_ROLE_MANAGER))
	s.status.Members = []store.MemberStatus{member("m1", true, true)}
	key := &api.DataKeyStatus{Generation: 3, ChangedAt: timestamppb.New(time.Unix(1000, 0))}
	report := func(nodeID string, key *api.DataKeyStatus) error {
		_, err := s.ReportDataKey(t.Context(), &api.ReportDataKeyRequest{NodeId: nodeID, DataKey: key})
		return err
	}
	shown := func() *api.DataKeyStatus {
		response, err := s.GetNode(t.Context(), &api.GetNodeRequest{Node: "m1"})
		if err != nil {
			t.Fatal(err)
		}
		return response.GetNode().GetDataKey()
	}
	var version uint64
	for i := range 2 {
		if err := report("m1", key); err != nil {
			t.Fatal(err)
		}
		now := storetest.Get[*api.Node](t, s.store, "m1").GetMeta().GetVersion()
		if i > 0 && now != version {
			t.Error("the same report was written again")
		}
		version = now
	}
	if got := shown(); !proto.Equal(got, key) {
		t.Errorf("got %v", got)
	}
	s.status.Members = nil
	if got := shown(); got != nil {
		t.Errorf("a former manager shows %v", got)
	}
	wantFault(t, report("m1", nil), fault.Invalid, "data_key")
	wantFault(t, report("nobody", key), fault.NotFound, "nobody")
}

func TestReportDataKey_IsOfTheCallerOnly(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, node("m1", api.Role_ROLE_MANAGER), node("m2", api.Role_ROLE_MANAGER))
	server, err := control.New(control.Config{Store: s, Logs: noLogs{}, Stats: ranStats{}, Placement: echoPlacement{}, Planner: echoPlanner{}, Users: newIssuer(t), NewUnlockKey: object.NewID, NewBackupKey: object.NewID})
	if err != nil {
		t.Fatal(err)
	}
	for _, caller := range []string{"m1", "m2"} {
		ctx := authz.NewContext(t.Context(), authz.Caller{Kind: api.Caller_CALLER_MANAGER, NodeID: caller})
		_, err := server.ReportDataKey(ctx, &api.ReportDataKeyRequest{NodeId: "m1", DataKey: &api.DataKeyStatus{Generation: 1}})
		if want := caller != "m1"; (fault.KindOf(err) == fault.PermissionDenied) != want || !want && err != nil {
			t.Errorf("%s reports for m1: %v", caller, err)
		}
	}
}

func TestUpdateCluster_ChecksDataKeyRotation(t *testing.T) {
	for _, tt := range []struct {
		name string
		age  *durationpb.Duration
		want string
		kept time.Duration
	}{
		{"absent is the default", nil, "", 720 * time.Hour},
		{"never", durationpb.New(0), "", 0},
		{"an hour", durationpb.New(time.Hour), "", time.Hour},
		{"too often", durationpb.New(time.Minute), "data_key_rotation: minimum is 1h0m0s", 0},
		{"negative", durationpb.New(-time.Hour), "data_key_rotation", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSwarm(t)
			spec := control.DefaultClusterSpec()
			spec.DataKeyRotation = tt.age
			version := storetest.Get[*api.Cluster](t, s.store, "cluster").GetMeta().GetVersion()
			_, err := s.UpdateCluster(t.Context(), &api.UpdateClusterRequest{Version: version, Spec: spec})
			if tt.want != "" {
				wantFault(t, err, fault.Invalid, tt.want)
				return
			}
			got := storetest.Get[*api.Cluster](t, s.store, "cluster").GetSpec().GetDataKeyRotation()
			if err != nil || got == nil || got.AsDuration() != tt.kept {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}
