export const title=()=>'pipelines'; export async function open(root){ return {}; }
