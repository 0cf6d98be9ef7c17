// A test of the CRI client through the multiplexer that CRI-O has before its gRPC server, apart from the suite's own go.mod.
module npd-plugins/test/cmux

go 1.26.0

require (
	github.com/soheilhy/cmux v0.1.5
	google.golang.org/grpc v1.85.0
	k8s.io/cri-api v0.37.2
	npd-plugins v0.0.0
)

require (
	github.com/sirupsen/logrus v1.10.2 // indirect
	go.yaml.in/yaml/v2 v2.4.2 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
	sigs.k8s.io/yaml v1.6.0 // indirect
)

replace npd-plugins => ../..
