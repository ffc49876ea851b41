#!/bin/bash
# A throw-away real Slurm on one machine: Debian's packages, root, no systemd, no slurmdbd; all state in DIR.
#   slurm_local.sh install                        (by apt-get)
#   slurm_local.sh up   DIR [NODES=2] [CPUS=2]    then: export SLURM_CONF=DIR/slurm.conf PATH=DIR/bin:$PATH
#   slurm_local.sh killnode DIR I                 as if node nI lost power (slurmd, its jobs)
#   slurm_local.sh node DIR I                     start nI's slurmd again
#   slurm_local.sh down DIR
# Nodes n1..nN; odd ones have Feature "cuda", even ones "dml"; each has one pretend GPU (--gres=gpu:1 sets CUDA_VISIBLE_DEVICES).
set -eu
CMD=${1:?}; [ "$CMD" = install ] || DIR=${2:?}; export SLURM_CONF=${DIR:-}/slurm.conf
stop() { # pid file: TERM, wait 10 s, KILL
  local p; p=$(cat "$1" 2>/dev/null) || return 0; kill "$p" 2>/dev/null || return 0
  for _ in $(seq 100); do [ -d "/proc/$p" ] && ! grep -q '^State:.Z' "/proc/$p/status" || return 0; sleep 0.1; done; kill -9 "$p" || true; }
tree() { local c; for c in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$c"; done; echo "$1"; }
startnode() { mkdir -p "$DIR/spool.n$1"; slurmd -f "$SLURM_CONF" -N "n$1"; }
waitidle() { # how many
  for _ in $(seq 150); do [ "$(sinfo -h -N -o %t 2>/dev/null | grep -c '^idle$')" = "$1" ] && return 0; sleep 0.2; done
  sinfo -N -l; tail -n 20 "$DIR"/log/*.log; return 1; }
case $CMD in
install)
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends munge slurmctld slurmd slurm-client procps >/dev/null ;;
up)
  N=${3:-2}; CPUS=${4:-2}; H=$(hostname -s); PORT=${BASEPORT:-16817}; umask 022
  mkdir -p "$DIR"/{bin,munge,sock,state,log,pid}; chmod 700 "$DIR/munge" "$DIR/state"
  [ -s "$DIR/munge/key" ] || head -c 128 /dev/urandom >"$DIR/munge/key"; chmod 400 "$DIR/munge/key"
  cat >"$DIR/bin/sacct" <<'C'
#!/bin/bash
# Stand-in for sacct, as no slurmdbd runs here: squeue's answer, for jobs that ended less than MinJobAge ago.
ids=(); while [ $# -gt 0 ]; do case $1 in -j) ids+=("$2"); shift 2;; *) shift;; esac; done
echo "JobID|State|NodeList"; squeue -h -r -t all -j "$(IFS=,; echo "${ids[*]}")" -o "%i|%T|%N"
C
  chmod 755 "$DIR/bin/sacct"
  cat >"$DIR/slurm.conf" <<C
ClusterName=test
SlurmctldHost=$H(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthInfo=socket=$DIR/sock/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool.%n
SlurmctldPidFile=$DIR/pid/slurmctld.pid
SlurmdPidFile=$DIR/pid/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.txt
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
ReturnToService=2
SlurmdTimeout=10
KillWait=30
MinJobAge=3600
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
MailProg=/bin/true
GresTypes=gpu
C
  : >"$DIR/gres.conf"
  for i in $(seq "$N"); do
    F=cuda; [ $((i%2)) = 0 ] && F=dml
    echo "NodeName=n$i Name=gpu Type=$F File=/dev/null" >>"$DIR/gres.conf"
    echo "NodeName=n$i NodeHostname=$H NodeAddr=127.0.0.1 Port=$((PORT+i)) CPUs=$CPUS RealMemory=4000 Gres=gpu:$F:1 Feature=$F State=UNKNOWN" >>"$DIR/slurm.conf"
  done
  echo "PartitionName=main Nodes=n[1-$N] Default=YES MaxTime=INFINITE State=UP" >>"$DIR/slurm.conf"
  munged --key-file="$DIR/munge/key" --socket="$DIR/sock/munge" --pid-file="$DIR/pid/munged.pid" \
         --log-file="$DIR/log/munged.log" --seed-file="$DIR/munge/seed" --force 2>>"$DIR/log/munged.err"
  slurmctld -f "$SLURM_CONF"
  for i in $(seq "$N"); do startnode "$i"; done
  waitidle "$N"; echo "export SLURM_CONF=$SLURM_CONF PATH=$DIR/bin:\$PATH" ;;
node) startnode "$3" ;;
killnode)
  pids=$(tree "$(cat "$DIR/pid/slurmd.n$3.pid")")
  for s in "$DIR/spool.n$3/n$3"_*; do [ -e "$s" ] || continue; j=${s##*/n$3_}; j=${j%%.*}   # sockets n1_JOB.STEP
    for p in $(ps -eo pid,args | awk -v j="[$j." '$2=="slurmstepd:" && index($3,j)==1 {print $1}'); do pids="$pids $(tree "$p")"; done; done
  kill -9 $pids 2>/dev/null || true ;;
down)
  [ -f "$SLURM_CONF" ] || exit 0
  timeout 5 scancel --user="$(id -un)" 2>/dev/null || true
  for _ in $(seq 50); do [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break; sleep 0.1; done
  for f in "$DIR"/pid/slurmd.*.pid "$DIR"/pid/slurmctld.pid "$DIR"/pid/munged.pid; do stop "$f"; done ;;
esac
