# Managed by rackserve: the role cuda writes this file.
# The release's toolkit for people and builds; engines have their own libraries and read none of this.
export CUDA_HOME=/usr/local/cuda-13.0
case ":$PATH:" in
  *":$CUDA_HOME/bin:"*) ;;
  *) export PATH="$CUDA_HOME/bin:$PATH" ;;
esac
