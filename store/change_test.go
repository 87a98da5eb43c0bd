package store

import (
	"encoding/hex"
	"fmt"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// Entries that change the membership are read for ever: these were written by the versions that their names say.
func TestDecodeChange_Golden(t *testing.T) {
	tests := []struct {
		name    string
		typ     raftpb.EntryType
		encoded string
		want    string
	}{
		{"before joint changes: a learner", raftpb.EntryConfChange, "10031807220e080712026d331a046d333a312001", "[ConfChangeAddLearnerNode 7 m3]"},
		{"before joint changes: a voter", raftpb.EntryConfChange, "10001807220c080712026d331a046d333a31", "[ConfChangeAddNode 7 m3]"},
		{"before joint changes: a removal", raftpb.EntryConfChange, "10011807220c080712026d331a046d333a31", "[ConfChangeRemoveNode 7 m3]"},
		{
			"a joint change", raftpb.EntryConfChangeV2, "1204080010081204080110071a1e0a0e080812026d331a046d333a3128010a0c080712026d331a046d333a31",
			"[ConfChangeAddNode 8 m3] [ConfChangeRemoveNode 7 m3]",
		},
		{"the end of a joint change", raftpb.EntryConfChangeV2, "", ""},
	}
	for _, test := range tests {
		data, err := hex.DecodeString(test.encoded)
		if err != nil {
			t.Fatal(err)
		}
		_, changes, err := decodeChange(&raftpb.Entry{Type: test.typ.Enum(), Data: data})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		got := ""
		for i, c := range changes {
			if i > 0 {
				got += " "
			}
			got += fmt.Sprintf("[%v %d %s]", c.kind, c.member.GetRaftId(), c.member.GetNodeId())
		}
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

func TestDecodeChange_RefusesWhatNoLeaderProposes(t *testing.T) {
	joint := func(members ...*api.Member) []byte {
		context, err := proto.Marshal(&api.MemberChanges{Members: members})
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := proto.Marshal(&raftpb.ConfChangeV2{
			Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: proto.Uint64(7)}}, Context: context,
		})
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	for name, e := range map[string]*raftpb.Entry{
		"garbage":           {Type: raftpb.EntryConfChange.Enum(), Data: []byte("garbage")},
		"joint garbage":     {Type: raftpb.EntryConfChangeV2.Enum(), Data: []byte("garbage")},
		"another member":    {Type: raftpb.EntryConfChangeV2.Enum(), Data: joint(&api.Member{RaftId: 8})},
		"a member too few":  {Type: raftpb.EntryConfChangeV2.Enum(), Data: joint()},
		"a member too many": {Type: raftpb.EntryConfChangeV2.Enum(), Data: joint(&api.Member{RaftId: 7}, &api.Member{RaftId: 8})},
	} {
		if _, _, err := decodeChange(e); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A joint change has its effect whole or not at all, on all members alike.
func TestMembers_JointChangeIsWholeOrNotAtAll(t *testing.T) {
	m := newMembers()
	m.load([]*api.Member{{RaftId: 7, NodeId: "m3"}, {RaftId: 8, NodeId: "m3", Learner: true}}, []uint64{6})
	replace := func(by, former uint64) bool {
		return m.change(
			memberChange{raftpb.ConfChangeAddNode, &api.Member{RaftId: by, NodeId: "m3"}},
			memberChange{raftpb.ConfChangeRemoveNode, &api.Member{RaftId: former, NodeId: "m3"}},
		)
	}
	if replace(8, 6) || replace(9, 7) || m.get(7) == nil || !m.get(8).GetLearner() {
		t.Errorf("a change that half holds had an effect: %v", m.list())
	}
	if !replace(8, 7) || m.get(8).GetLearner() || !m.isRemoved(7) || m.get(7) != nil {
		t.Errorf("after the change: %v", m.list())
	}
	if replace(8, 7) {
		t.Error("it has an effect twice")
	}
}
